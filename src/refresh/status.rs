//! How a refresher fares.

use std::fmt;
use std::time::SystemTime;

use super::ReloadError;
use crate::source::{Provenance, Remark};

/// How a refresher fares. Its `Display` is one line for a person.
///
/// ```
/// use keysheath::chain::Chain;
/// use keysheath::key::Kanal;
/// use keysheath::refresh::{RefreshSettings, Refresher};
/// use keysheath::source::SecretFile;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("kanal");
/// std::fs::write(&path, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// let refresher = Refresher::from_chain(Chain::<Kanal>::new().with(SecretFile::new(&path)), RefreshSettings::new())?;
/// let status = refresher.status();
/// assert!(status.can_change() && status.problem().is_none());
/// # Ok::<(), keysheath::refresh::RefreshError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshStatus {
    pub(super) provenance: Provenance,
    pub(super) remarks: Vec<Remark>,
    pub(super) last_success: SystemTime,
    pub(super) failures: u32,
    pub(super) problem: Option<ReloadError>,
    pub(super) untold: u64,
    #[cfg(feature = "watch")]
    pub(super) watching: super::Watching,
}

impl RefreshStatus {
    /// Where the keys come from.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshStatus;
    /// fn log(status: &RefreshStatus) {
    ///     println!("{}", status.provenance());
    /// }
    /// ```
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// When the place was last read and was good, whether or not it held a newer key.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshStatus;
    /// fn is_old(status: &RefreshStatus) -> bool {
    ///     status.last_success().elapsed().is_ok_and(|age| age.as_secs() > 3600)
    /// }
    /// ```
    #[must_use]
    pub const fn last_success(&self) -> SystemTime {
        self.last_success
    }

    /// How many reloads have failed since then.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshStatus;
    /// fn is_well(status: &RefreshStatus) -> bool {
    ///     status.failures_in_a_row() == 0
    /// }
    /// ```
    #[must_use]
    pub const fn failures_in_a_row(&self) -> u32 {
        self.failures
    }

    /// Why the last reload failed; `None` where it did not.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshStatus;
    /// fn log(status: &RefreshStatus) {
    ///     if let Some(problem) = status.problem() {
    ///         eprintln!("{problem}");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub const fn problem(&self) -> Option<&ReloadError> {
        self.problem.as_ref()
    }

    /// How many events were not told, because the [callback](super::RefreshSettings::on_event) blocked and
    /// [`MAX_WAITING_EVENTS`](super::MAX_WAITING_EVENTS) waited for it, or because a subscriber of `tracing` blocked.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshStatus;
    /// fn has_told_all(status: &RefreshStatus) -> bool {
    ///     status.untold_events() == 0
    /// }
    /// ```
    #[must_use]
    pub const fn untold_events(&self) -> u64 {
        self.untold
    }

    /// What was remarked on when the key was read the last time, such as a file that every user can read.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshStatus;
    /// fn log(status: &RefreshStatus) {
    ///     for remark in status.remarks() {
    ///         eprintln!("{}: {remark}", status.provenance());
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Whether what stands there can change at all while the process runs. A variable cannot, and is not polled. A file that
    /// is mounted alone cannot either once it was replaced where it is mounted from; one of the
    /// [remarks](RefreshStatus::remarks) then says so.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshStatus;
    /// fn needs_a_restart(status: &RefreshStatus) -> bool {
    ///     !status.can_change()
    /// }
    /// ```
    #[must_use]
    pub fn can_change(&self) -> bool {
        !self.provenance.is_fixed() && !self.remarks.contains(&Remark::Unlinked)
    }

    /// Whether its files are watched.
    ///
    /// ```
    /// # use keysheath::refresh::{RefreshStatus, Watching};
    /// fn is_watched(status: &RefreshStatus) -> bool {
    ///     status.watching() == Watching::Files
    /// }
    /// ```
    #[cfg(feature = "watch")]
    #[must_use]
    pub const fn watching(&self) -> super::Watching {
        self.watching
    }
}

impl fmt::Display for RefreshStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Some(problem) => {
                let failures = self.failures;
                write!(
                    f,
                    "{problem}; the last good key stays in force (reloads failed in a row: {failures})"
                )?;
            }
            None if self.provenance.is_fixed() => write!(
                f,
                "{}: it cannot change while the process runs, so it is not polled; after a rotation, restart",
                self.provenance
            )?,
            None => {
                let state = if self.can_change() { "well" } else { "the file does not change any more" };
                write!(f, "{}: {state}", self.provenance)?;
            }
        }
        for remark in &self.remarks {
            write!(f, "; {remark}")?;
        }
        if self.untold > 0 {
            write!(
                f,
                "; events that were not told, because the callback or the subscriber blocks: {}",
                self.untold
            )?;
        }
        #[cfg(feature = "watch")]
        write!(f, "; {}", self.watching)?;
        Ok(())
    }
}
