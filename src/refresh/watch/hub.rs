//! One watcher in the process, for all refreshers: an inotify instance is scarce, and a user has 128 of them.
//!
//! A folder is watched while a refresher looks for names in it. It is known by its inode and not its path:
//! what is renamed or made again is another folder, and a folder that is mounted twice is watched once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{Event, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Signal, WatchProblem, problem};

use crate::internal::threads::Lock;

/// How long one waits for another, and how often it looks.
const TURN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(1));

/// A watcher that has been busy for longer hangs, as on a mount whose server is gone. Another one takes its
/// place.
const HANGS: Duration = Duration::from_secs(5);

static CURRENT: Lock<Option<Arc<Hub>>> = Lock::new(None);

/// The folders of one way, and the names that are looked for in each.
pub(super) type Wanted = BTreeMap<PathBuf, BTreeSet<OsString>>;

pub(super) struct Hub {
    /// A forked child has no thread of the library.
    process: u32,
    /// Held while the file system is asked, so never longer than that hangs.
    watcher: Lock<Option<RecommendedWatcher>>,
    busy_since: Lock<Option<Instant>>,
    table: Arc<Table>,
}

/// Held for an instant only.
#[derive(Default)]
struct Table(Lock<HashMap<Identity, Folder>>);

/// What a folder is, whatever its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(unix, allow(dead_code, reason = "what a system without numbers of files has"))]
enum Identity {
    /// The numbers of its device and of itself.
    Number(u64, u64),
    Path(PathBuf),
}

struct Folder {
    /// As it is watched.
    path: PathBuf,
    /// Until its watch is seen to end.
    is_alive: bool,
    users: Vec<User>,
}

struct User {
    signal: Weak<Signal>,
    names: BTreeSet<OsString>,
}

/// The right to call the file system.
struct Turn<'a> {
    watcher: MutexGuard<'a, Option<RecommendedWatcher>>,
    busy_since: &'a Lock<Option<Instant>>,
}

impl Identity {
    fn of(folder: &Path) -> io::Result<Self> {
        let metadata = folder.metadata()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            Ok(Self::Number(metadata.dev(), metadata.ino()))
        }
        #[cfg(not(unix))]
        {
            drop(metadata);
            Ok(Self::Path(folder.to_owned()))
        }
    }

    /// Returns whether a folder that was made again is another one by this.
    const fn tells_folders_apart(&self) -> bool {
        matches!(self, Self::Number(..))
    }
}

impl Hub {
    /// Returns the hub of this process.
    pub(super) fn current() -> Arc<Self> {
        let mut current = CURRENT.lock();
        if let Some(hub) = current.as_ref() {
            if hub.process == process::id() && !hub.hangs() {
                return Arc::clone(hub);
            }
            // What it watched is watched by the next one, once each has looked again.
            hub.table.tell_all();
        }
        let hub = Arc::new(Self {
            process: process::id(),
            watcher: Lock::new(None),
            busy_since: Lock::new(None),
            table: Arc::default(),
        });
        // The old one goes with its last user, and a forked child's copy never.
        if let Some(old) = current.replace(Arc::clone(&hub)).filter(|old| old.process != hub.process) {
            std::mem::forget(old);
        }
        hub
    }

    /// Watches these folders for one user, and stops watching the ones it no longer needs.
    pub(super) fn set(&self, signal: &Arc<Signal>, wanted: Wanted) -> Result<(), WatchProblem> {
        let mut outcome = Ok(());
        let mut folders = Vec::new();
        // Before the turn, because it may hang as well.
        for (path, names) in wanted {
            match Identity::of(&path) {
                Ok(identity) => folders.push((identity, path, names)),
                Err(error) => outcome = Err(WatchProblem::Refused(error.kind())),
            }
        }
        let mut turn = self.turn().ok_or(WatchProblem::Hangs)?;
        turn.unwatch(
            self.table.leave(signal, |identity| folders.iter().any(|(wanted, ..)| wanted == identity)),
        );
        for (identity, path, names) in folders {
            let user = User { signal: Arc::downgrade(signal), names };
            // The other folders are watched even so.
            if let Err(problem) = self.join(&mut turn, &identity, &path, user) {
                outcome = Err(problem);
            }
        }
        if self.table.is_empty() {
            *turn.watcher = None;
        }
        outcome
    }

    /// Ends what one user wanted. Where that has to wait, the next one ends it.
    pub(super) fn leave(&self, signal: &Arc<Signal>) {
        let Some(mut turn) = self.turn() else { return };
        turn.unwatch(self.table.leave(signal, |_| false));
        if self.table.is_empty() {
            *turn.watcher = None;
        }
    }

    /// Starts again after a panic of the library.
    pub(super) fn reset(&self) {
        let Some(mut turn) = self.turn() else { return };
        self.table.tell_all();
        self.table.0.lock().clear();
        *turn.watcher = None;
    }

    fn join(
        &self,
        turn: &mut Turn<'_>,
        identity: &Identity,
        path: &Path,
        user: User,
    ) -> Result<(), WatchProblem> {
        let Some(user) = self.table.put(identity, user) else { return Ok(()) };
        let (superseded, mut users) = self.table.supersede(identity, path);
        turn.unwatch(superseded);
        users.push(user);
        let watcher = match &mut *turn.watcher {
            Some(watcher) => watcher,
            none => none.insert(self.new_watcher()?),
        };
        // Before it is watched, so that no event of it is missed.
        let folder = Folder { path: path.to_owned(), is_alive: true, users };
        self.table.0.lock().insert(identity.clone(), folder);
        watcher.watch(path, RecursiveMode::NonRecursive).map_err(|error| {
            if let Some(folder) = self.table.0.lock().remove(identity) {
                folder.tell_all();
            }
            problem(&error.kind)
        })
    }

    fn new_watcher(&self) -> Result<RecommendedWatcher, WatchProblem> {
        let table = Arc::clone(&self.table);
        notify::recommended_watcher(move |event: notify::Result<Event>| table.hear(event.ok().as_ref()))
            .map_err(|error| problem(&error.kind))
    }

    fn turn(&self) -> Option<Turn<'_>> {
        let start = Instant::now();
        loop {
            let watcher = match self.watcher.try_lock() {
                Some(watcher) => watcher,
                None if start.elapsed() < TURN.0 => {
                    thread::sleep(TURN.1);
                    continue;
                }
                None => return None,
            };
            *self.busy_since.lock() = Some(Instant::now());
            return Some(Turn { watcher, busy_since: &self.busy_since });
        }
    }

    pub(super) fn hangs(&self) -> bool {
        self.busy_since.lock().is_some_and(|since| since.elapsed() >= HANGS)
    }
}

impl Turn<'_> {
    fn unwatch(&mut self, folders: Vec<PathBuf>) {
        let Some(watcher) = &mut *self.watcher else { return };
        for folder in folders {
            // It may be gone, and its watch with it.
            let _ = watcher.unwatch(&folder);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.busy_since.lock() = None;
    }
}

impl Table {
    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Removes a user from the folders that it leaves, and returns those that no user watches any more.
    fn leave(&self, signal: &Arc<Signal>, stays: impl Fn(&Identity) -> bool) -> Vec<PathBuf> {
        let mut idle = Vec::new();
        self.0.lock().retain(|identity, folder| {
            let is_it = |user: &User| user.signal.as_ptr() == Arc::as_ptr(signal) && !stays(identity);
            folder.users.retain(|user| user.signal.strong_count() > 0 && !is_it(user));
            if folder.users.is_empty() {
                idle.push(std::mem::take(&mut folder.path));
            }
            !folder.users.is_empty()
        });
        idle
    }

    /// Puts a user into a folder that is watched, or gives it back.
    fn put(&self, identity: &Identity, user: User) -> Option<User> {
        let mut table = self.0.lock();
        let folder =
            table.get_mut(identity).filter(|folder| folder.is_alive && identity.tells_folders_apart());
        let Some(folder) = folder else { return Some(user) };
        folder.users.retain(|there| !there.signal.ptr_eq(&user.signal));
        folder.users.push(user);
        None
    }

    /// Removes the entry that a new folder replaces, and returns its users.
    fn supersede(&self, identity: &Identity, path: &Path) -> (Vec<PathBuf>, Vec<User>) {
        let (mut paths, mut users) = (Vec::new(), Vec::new());
        self.0.lock().retain(|there, folder| {
            let stays = there != identity && folder.path != path;
            if !stays {
                paths.push(std::mem::take(&mut folder.path));
                users.append(&mut folder.users);
            }
            stays
        });
        (paths, users)
    }

    /// Hears of an event; without one, of an error, after which it is not known what has changed.
    fn hear(&self, event: Option<&Event>) {
        let Some(event) = event.filter(|event| !event.need_rescan()) else { return self.tell_all() };
        // Our own reading is an access.
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        let ends_a_watch =
            matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
        for path in &event.paths {
            for folder in self.0.lock().values_mut() {
                if folder.path == *path {
                    folder.is_alive &= !ends_a_watch;
                    folder.tell_all();
                } else if path.parent() == Some(&folder.path)
                    && let Some(name) = path.file_name()
                {
                    folder.tell(|user| user.names.contains(name));
                }
            }
        }
    }

    /// Whatever happened, each is to look, and to watch again.
    fn tell_all(&self) {
        for folder in self.0.lock().values_mut() {
            folder.is_alive = false;
            folder.tell_all();
        }
    }
}

impl Folder {
    fn tell_all(&self) {
        self.tell(|_| true);
    }

    fn tell(&self, whom: impl Fn(&User) -> bool) {
        for user in self.users.iter().filter(|user| whom(user)) {
            if let Some(signal) = user.signal.upgrade() {
                signal.changed();
            }
        }
    }
}
