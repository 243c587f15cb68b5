//! The files of a place, watched.
//!
//! What is watched are folders, not recursively, and never the file itself: a watch on a file is dead once
//! another file has taken its name. Kubernetes replaces the link `..data`, and with it what `key` leads to;
//! so the folders of all links on the way are watched, and the path is followed again before each read. All
//! refreshers share one watcher.

mod hub;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use super::WatchProblem;
use super::run::WatchFiles;
use crate::handle::Reloader;
use crate::internal::threads::{Lock, contained};
use hub::{Hub, Wanted};

/// How often a way is walked that changes meanwhile, until a pause is made; and after how many pauses it
/// waits for a poll.
const WALKS: (u32, u32) = (5, 100);

/// Watches the way to one file.
pub(super) struct Watch {
    file: PathBuf,
    /// Held by the thread that looks at the way, which may hang.
    looking: Mutex<()>,
    /// How often in a row the way was another one by the time that it was watched.
    raced: AtomicU32,
    state: Lock<Result<(), WatchProblem>>,
    signal: Arc<Signal>,
}

/// What the watcher's thread and the refresher's share.
struct Signal {
    has_changed: AtomicBool,
    reloader: Arc<Reloader>,
}

impl Watch {
    pub(super) fn start(file: PathBuf, reloader: Arc<Reloader>) -> Arc<dyn WatchFiles> {
        Arc::new(Self {
            file,
            looking: Mutex::new(()),
            raced: AtomicU32::new(0),
            // Until it is armed for the first time.
            state: Lock::new(Err(WatchProblem::Hangs)),
            signal: Arc::new(Signal { has_changed: AtomicBool::new(false), reloader }),
        })
    }

    /// Where the way is another one by the time that it is watched, as in the middle of a swap, it is walked
    /// again.
    fn follow(&self, hub: &Hub) -> Result<(), WatchProblem> {
        for _ in 0..WALKS.0 {
            let way = entries_to(&self.file);
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
                Err(problem) => return Err(problem),
                Ok(()) if entries_to(&self.file) == way => {
                    self.raced.store(0, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(()) => {}
            }
        }
        if self.raced.fetch_add(1, Ordering::Relaxed) >= WALKS.1 {
            return Err(WatchProblem::Refused(ErrorKind::NotFound));
        }
        // The folders that hold the links are watched; what lies behind them is walked to after the next
        // pause.
        self.signal.changed();
        Ok(())
    }
}

impl WatchFiles for Watch {
    fn take_change(&self) -> bool {
        self.signal.has_changed.swap(false, Ordering::AcqRel)
    }

    fn state(&self) -> Result<(), WatchProblem> {
        *self.state.lock()
    }

    fn arm(&self) {
        let state = match self.looking.try_lock() {
            Ok(_looking) => {
                let hub = Hub::current();
                // The library's thread may be gone, and then its functions panic.
                contained(|| self.follow(&hub)).unwrap_or_else(|| {
                    hub.reset();
                    Err(WatchProblem::Failed)
                })
            }
            Err(TryLockError::WouldBlock) => Err(WatchProblem::Hangs),
            Err(TryLockError::Poisoned(_)) => Err(WatchProblem::Failed),
        };
        *self.state.lock() = state;
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
        self.reloader.wake();
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

/// How many links are followed; Linux follows as many.
const MOST_LINKS: usize = 40;

/// A name in a folder. A change of it may change the file that the path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Resolved: no link is in it.
    folder: PathBuf,
    name: OsString,
}

/// Each link on the way, and at last the file; where the way ends before, the name that is missing there.
fn entries_to(file: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let Ok(file) = std::path::absolute(file) else { return entries };
    let mut folder = PathBuf::new();
    // What is still to be walked, the next step at the end.
    let mut rest = steps(&file);
    let mut links = 0;
    while let Some(step) = rest.pop() {
        let name = match step {
            Step::Root(root) => {
                folder = root;
                continue;
            }
            Step::Up => {
                folder.pop();
                continue;
            }
            Step::Into(name) => name,
        };
        let path = folder.join(&name);
        let entry = Entry { folder: folder.clone(), name };
        let is_link = path.symlink_metadata().map(|metadata| metadata.is_symlink());
        match is_link {
            Ok(true) => {
                links += 1;
                entries.push(entry);
                match path.read_link() {
                    Ok(target) if links <= MOST_LINKS => rest.extend(steps(&target)),
                    _ => return entries,
                }
            }
            Ok(false) if !rest.is_empty() => folder = path,
            _ => {
                entries.push(entry);
                return entries;
            }
        }
    }
    entries
}

enum Step {
    Root(PathBuf),
    Up,
    Into(OsString),
}

/// Returns the steps of a path, the first at the end. A path from the root begins with the root, whatever was
/// before.
fn steps(path: &Path) -> Vec<Step> {
    let mut root = PathBuf::new();
    let mut steps = Vec::new();
    for component in path.components() {
        match component {
            Component::Prefix(_) | Component::RootDir => root.push(component),
            Component::CurDir => {}
            Component::ParentDir => steps.push(Step::Up),
            Component::Normal(name) => steps.push(Step::Into(name.to_owned())),
        }
    }
    steps.reverse();
    if !root.as_os_str().is_empty() {
        steps.push(Step::Root(root));
    }
    steps
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    /// Returns the entries below `folder`, as paths from there.
    fn names(folder: &Path, file: &str) -> Vec<String> {
        let entries = entries_to(&folder.join(file)).into_iter().map(|entry| entry.folder.join(entry.name));
        entries.map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_way_to_a_kubernetes_secret_leads_over_both_links() {
        let (_folder, at) = folder();
        fs::create_dir(at.join("..2026_1")).unwrap();
        fs::write(at.join("..2026_1/key"), "").unwrap();
        symlink("..2026_1", at.join("..data")).unwrap();
        symlink("..data/key", at.join("key")).unwrap();
        assert_eq!(names(&at, "key"), ["key", "..data", "..2026_1/key"]);
    }

    #[test]
    fn links_in_the_middle_upwards_and_from_the_root_are_followed() {
        let (_folder, at) = folder();
        fs::create_dir_all(at.join("releases/7")).unwrap();
        fs::create_dir_all(at.join("shared/keys")).unwrap();
        fs::write(at.join("shared/keys/kanal"), "").unwrap();
        symlink("releases/7", at.join("current")).unwrap();
        symlink(at.join("shared"), at.join("releases/7/config")).unwrap();
        symlink("../shared/./keys", at.join("releases/keys")).unwrap();
        assert_eq!(
            names(&at, "current/config/keys/kanal"),
            ["current", "releases/7/config", "shared/keys/kanal"]
        );
        assert_eq!(names(&at, "current/../keys/kanal"), ["current", "releases/keys", "shared/keys/kanal"]);
    }

    #[test]
    fn a_way_that_ends_before_its_file_ends_at_what_is_missing() {
        let (_folder, at) = folder();
        assert_eq!(names(&at, "a/b/key"), ["a"]);
        fs::create_dir(at.join("a")).unwrap();
        assert_eq!(names(&at, "a/b/key"), ["a/b"]);
        symlink("gone/key", at.join("link")).unwrap();
        assert_eq!(names(&at, "link"), ["link", "gone"]);
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let (_folder, at) = folder();
        symlink("b", at.join("a")).unwrap();
        symlink("a", at.join("b")).unwrap();
        assert_eq!(names(&at, "a").len(), MOST_LINKS + 1);
    }
}
