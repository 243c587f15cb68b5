//! Why there is no emulator.

use std::io;

use crate::registry::RegistryError;

/// An emulator could not be started. Nothing is left behind.
///
/// ```
/// use keysheath::emulator::{Emulator, EmulatorError};
///
/// let first = Emulator::start()?;
/// let error = Emulator::kanal().with_port(first.origin().port()).start().unwrap_err();
/// assert!(matches!(error, EmulatorError::Bind(_)));
/// # Ok::<(), EmulatorError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// A port on 127.0.0.1 cannot be had.
    #[error(
        "a port on 127.0.0.1 cannot be had ({0}): name another, or leave it out and take any that is free"
    )]
    Bind(io::ErrorKind),
    /// Kanal was to answer in a shape that it does not have.
    #[error("Kanal has one shape of errors: leave with_nested_errors (--nested-errors) out, or start Katana")]
    NestedErrors,
    /// The operating system gives no thread, or no way to wait for input.
    #[error("the operating system gives no thread or no event queue ({0}): look at this user's limits")]
    Runtime(io::ErrorKind),
    /// There are no keys to start with.
    #[error("the emulator's first key and stores cannot be made: {0}")]
    Registry(RegistryError),
    /// There is no random token for the control plane.
    #[error(
        "the operating system's generator of random bytes failed, so the control plane has no token: start it again"
    )]
    NoRandomness,
    /// There is no certificate for TLS.
    #[error("the certificate for TLS cannot be made: start it again, or without TLS")]
    Certificate,
}

impl From<RegistryError> for EmulatorError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}
