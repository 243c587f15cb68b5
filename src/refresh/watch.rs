//! The files of a place, watched.
//!
//! What is watched are folders, not recursively, and never the file itself: a watch on a file is dead once another file
//! has taken its name. Kubernetes replaces the link `..data`, and with it what `key` leads to; so the folders of all links
//! on the way are watched, and the way is walked anew before each reading.

mod way;

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use notify::event::{Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::handle::RawHandle;
use way::Entry;

/// How long after a change its file is read. A change is seldom one event alone, and a file that is written without end is
/// read no more often than this.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(10);

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
    /// Armed anew on the thread of each attempt, which may hang.
    armed: Mutex<Armed>,
    state: Mutex<Watching>,
    signal: Arc<Signal>,
}

#[derive(Default)]
struct Armed {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

/// What the watcher's thread and the refresher's share.
struct Signal {
    has_changed: AtomicBool,
    /// What counts: the files and links on the way, and their folders.
    looked_for: Mutex<BTreeSet<PathBuf>>,
    handle: RawHandle,
}

impl Watch {
    pub(super) fn of(file: PathBuf, handle: RawHandle) -> Arc<Self> {
        let signal = Signal { has_changed: AtomicBool::new(false), looked_for: Mutex::default(), handle };
        Arc::new(Self {
            file,
            armed: Mutex::default(),
            // Until it is armed for the first time.
            state: Mutex::new(Watching::Failed(WatchProblem::Hangs)),
            signal: Arc::new(signal),
        })
    }

    /// Whether there was a change since this was asked last.
    pub(super) fn take_change(&self) -> bool {
        self.signal.has_changed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn state(&self) -> Watching {
        *lock(&self.state)
    }

    /// Watches the way to the file as it is now. It may hang where the file system does.
    pub(super) fn arm(&self) {
        let state = match self.armed.try_lock() {
            // The library's thread may be gone, and then its functions panic.
            Ok(mut armed) => match catch_unwind(AssertUnwindSafe(|| self.arm_anew(&mut armed))) {
                Ok(Ok(())) => Watching::Files,
                Ok(Err(problem)) => Watching::Failed(problem),
                Err(_) => {
                    armed.watcher = None;
                    Watching::Failed(WatchProblem::Failed)
                }
            },
            Err(TryLockError::WouldBlock) => Watching::Failed(WatchProblem::Hangs),
            Err(TryLockError::Poisoned(_)) => Watching::Failed(WatchProblem::Failed),
        };
        *lock(&self.state) = state;
    }

    /// Also where nothing seems to have changed: a folder that was made again may have the number of the old one, and
    /// nothing says that a watch is dead. What changes while a folder is not watched is read right after.
    fn arm_anew(&self, armed: &mut Armed) -> Result<(), WatchProblem> {
        let Armed { watcher, folders } = armed;
        let watcher = match watcher {
            Some(watcher) => watcher,
            none => none.insert(self.new_watcher()?),
        };
        for folder in std::mem::take(folders) {
            // It may be gone, and its watch with it.
            let _ = watcher.unwatch(&folder);
        }
        let way = way::to(&self.file);
        let mut looked_for = BTreeSet::new();
        for Entry { folder, name } in &way {
            looked_for.insert(folder.join(name));
            looked_for.insert(folder.clone());
        }
        *lock(&self.signal.looked_for) = looked_for;
        let mut outcome = Ok(());
        for Entry { folder, .. } in way {
            if folders.contains(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    folders.insert(folder);
                }
                // The other folders are watched even so.
                Err(error) => outcome = Err(problem(&error.kind)),
            }
        }
        outcome
    }

    fn new_watcher(&self) -> Result<RecommendedWatcher, WatchProblem> {
        let signal = Arc::clone(&self.signal);
        notify::recommended_watcher(move |event: notify::Result<Event>| signal.hear(event.ok().as_ref()))
            .map_err(|error| problem(&error.kind))
    }
}

impl Signal {
    /// Hears of an event; without one, of an error, after which nobody knows what has changed.
    fn hear(&self, event: Option<&Event>) {
        if event.is_none_or(|event| self.is_looked_for(event)) {
            self.has_changed.store(true, Ordering::Release);
            self.handle.wake_reloaders();
        }
    }

    fn is_looked_for(&self, event: &Event) -> bool {
        // Our own reading is an access.
        if matches!(event.kind, EventKind::Access(_)) {
            return false;
        }
        let looked_for = lock(&self.looked_for);
        event.need_rescan() || event.paths.iter().any(|path| looked_for.contains(path))
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is replaced as a whole, so a panic elsewhere has left none half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
