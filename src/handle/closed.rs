//! Why a handle has no key.

/// No key is in force, so nothing is sent: why, and what to do next.
///
/// ```
/// use keysheath::handle::NoActiveKey;
/// assert!(NoActiveKey::Compromised.to_string().contains("create a new one"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NoActiveKey {
    /// No key has come into force yet.
    #[error(
        "no key is in force: none was loaded yet, or the key set has none; stage one, verify it and promote it"
    )]
    NoKey,
    /// The key in force has leaked, and there is no other to send.
    #[error(
        "no key is in force: the one that was has leaked, and there is no other; delete it in the app, create a new \
         one, stage it, verify it and promote it"
    )]
    Compromised,
}
