//! The files of a place, watched.
//!
//! What is watched are folders, not recursively, and never the file itself: a watch on a file is dead once another file
//! has taken its name. Kubernetes replaces the link `..data`, and with it what `key` leads to; so the folders of all links
//! on the way are watched, and the way is walked anew before each reading. All refreshers share one watcher.

mod hub;
mod symlinks;

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use super::shared::Shared;
use crate::internal::contained::contained;
use crate::internal::lock::Lock;
use hub::{Hub, Wanted};
use symlinks::Entry;

/// How long after a change its file is read. A change is seldom one event alone, and a file that is written without end is
/// read no more often than this.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(10);

/// How often a way is walked that changes meanwhile, until a pause is made; and after how many pauses it waits for a poll.
const WALKS: (u32, u32) = (5, 100);

/// Whether the files of a place are watched. Its `Display` ends a [`RefreshStatus`](super::RefreshStatus).
///
/// ```
/// use keysheath::refresh::Watching;
/// assert_eq!(Watching::Files.to_string(), "its files are watched");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watching {
    /// It was not asked for.
    Off,
    /// The place is no file, so there is nothing to watch.
    NoFiles,
    /// Its files are watched.
    Files,
    /// They cannot be watched now. It is tried again with each poll.
    Failed(WatchProblem),
}

/// Why files cannot be watched, and what to do next. Polling goes on.
///
/// ```
/// use keysheath::refresh::WatchProblem;
/// assert!(WatchProblem::TooMany.to_string().contains("max_user_watches"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchProblem {
    /// A limit of the operating system is reached.
    #[error(
        "this user watches as many files as the system allows: raise fs.inotify.max_user_watches and max_user_instances, \
         and the limit of open files"
    )]
    TooMany,
    /// The operating system refused.
    #[error(
        "the system does not let its folders be watched ({0}): let this user read each folder on the way"
    )]
    Refused(ErrorKind),
    /// An earlier attempt to watch has not come back.
    #[error("an earlier attempt to watch its folders hangs: see to the disk or the mount that they are on")]
    Hangs,
    /// It failed for another reason.
    #[error("its folders cannot be watched on this system")]
    Failed,
}

/// Watches the way to one file.
pub(super) struct Watch {
    file: PathBuf,
    /// Held by the thread that looks at the way, which may hang.
    looking: Mutex<()>,
    /// How often in a row the way was another one by the time that it was watched.
    raced: AtomicU32,
    state: Lock<Watching>,
    signal: Arc<Signal>,
}

/// What the watcher's thread and the refresher's share.
struct Signal {
    has_changed: AtomicBool,
    shared: Arc<Shared>,
}

impl Watch {
    pub(super) fn new(file: PathBuf, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            file,
            looking: Mutex::new(()),
            raced: AtomicU32::new(0),
            // Until it is armed for the first time.
            state: Lock::new(Watching::Failed(WatchProblem::Hangs)),
            signal: Arc::new(Signal { has_changed: AtomicBool::new(false), shared }),
        })
    }

    /// Whether there was a change since this was asked last.
    pub(super) fn take_change(&self) -> bool {
        self.signal.has_changed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn state(&self) -> Watching {
        *self.state.lock()
    }

    /// Watches the way to the file as it is now. It may hang where the file system does.
    pub(super) fn arm(&self) {
        let state = match self.looking.try_lock() {
            Ok(_looking) => {
                let hub = Hub::current();
                // The library's thread may be gone, and then its functions panic.
                contained(|| self.follow(&hub)).unwrap_or_else(|| {
                    hub.reset();
                    Watching::Failed(WatchProblem::Failed)
                })
            }
            Err(TryLockError::WouldBlock) => Watching::Failed(WatchProblem::Hangs),
            Err(TryLockError::Poisoned(_)) => Watching::Failed(WatchProblem::Failed),
        };
        *self.state.lock() = state;
    }

    /// Where the way is another one by the time that it is watched, as in the middle of a swap, it is walked again.
    fn follow(&self, hub: &Hub) -> Watching {
        for _ in 0..WALKS.0 {
            let way = symlinks::to(&self.file);
            let mut wanted = Wanted::new();
            for Entry { folder, name } in &way {
                wanted.entry(folder.clone()).or_default().insert(name.clone());
            }
            match hub.set(&self.signal, wanted) {
                Err(WatchProblem::Refused(ErrorKind::NotFound)) => {}
                // Others are at it. That is no news before the watcher is seen to hang.
                Err(WatchProblem::Hangs) if !hub.hangs() => {
                    self.signal.changed();
                    return self.state();
                }
                Err(problem) => return Watching::Failed(problem),
                Ok(()) if symlinks::to(&self.file) == way => {
                    self.raced.store(0, Ordering::Relaxed);
                    return Watching::Files;
                }
                Ok(()) => {}
            }
        }
        if self.raced.fetch_add(1, Ordering::Relaxed) >= WALKS.1 {
            return Watching::Failed(WatchProblem::Refused(ErrorKind::NotFound));
        }
        // The folders that hold the links are watched; what lies behind them is walked to after the next pause.
        self.signal.changed();
        Watching::Files
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let hub = Hub::current();
        contained(|| hub.leave(&self.signal));
    }
}

impl Signal {
    fn changed(&self) {
        self.has_changed.store(true, Ordering::Release);
        self.shared.reloader.wake();
    }
}

/// Keeps what the error is and drops what it carries.
fn problem(kind: &notify::ErrorKind) -> WatchProblem {
    const TOO_MANY_OPEN_FILES: i32 = 24;

    match kind {
        notify::ErrorKind::MaxFilesWatch => WatchProblem::TooMany,
        notify::ErrorKind::Io(error) if error.raw_os_error() == Some(TOO_MANY_OPEN_FILES) => {
            WatchProblem::TooMany
        }
        notify::ErrorKind::Io(error) => WatchProblem::Refused(error.kind()),
        notify::ErrorKind::PathNotFound => WatchProblem::Refused(ErrorKind::NotFound),
        _ => WatchProblem::Failed,
    }
}

impl Watching {
    /// Until files are watched.
    pub(super) const fn at_start(is_asked_for: bool) -> Self {
        if is_asked_for { Self::NoFiles } else { Self::Off }
    }
}

impl fmt::Display for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("it is not watched"),
            Self::NoFiles => f.write_str("it is no file, so there is nothing to watch"),
            Self::Files => f.write_str("its files are watched"),
            Self::Failed(problem) => write!(f, "it is not watched: {problem}"),
        }
    }
}
