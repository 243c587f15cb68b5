//! What came of asking for a newer key.

use std::fmt;

/// What came of [`KeyHandle::reload_past`](super::KeyHandle::reload_past).
///
/// ```
/// use keysheath::handle::Reload;
/// assert_eq!(Reload::Unchanged.to_string(), "the place still holds the same key");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reload {
    /// A newer generation is in force.
    Newer,
    /// The place was asked, and holds the same key.
    Unchanged,
    /// The place could not be read, or held something that is no key. The last good key stays in force.
    Failed,
    /// The place was asked a moment ago, and is not asked again yet.
    TooSoon,
    /// Nothing reloads this handle: its key is fixed, its refresher has ended, or this is a forked child, which has no thread
    /// of the refresher.
    NoRefresher,
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newer => "a newer key is in force",
            Self::Unchanged => "the place still holds the same key",
            Self::Failed => "the place could not be read; the last good key stays in force",
            Self::TooSoon => "the place was asked a moment ago",
            Self::NoRefresher => "nothing reloads this key",
        })
    }
}
