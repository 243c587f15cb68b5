//! Files that are watched: the Kubernetes swap, editors, folders that are removed and made again, and what
//! cannot be watched. Nothing here is polled, so what is seen was seen by watching.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::Duration;

use keysheath::FileProblem;
use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::{RefreshEvent, RefreshSettings, Refresher, ReloadProblem, WatchProblem};
use keysheath::source::{Absence, Problem, SecretFile, Source};
use keysheath::store::{FileStore, MemoryStore};

use crate::support::refreshing::{
    Events, PATIENCE, SECOND, Scripted, THIRD, activate, eventually, has, key_set, only_asked, persist, quick,
};
use crate::support::{Child, Folder, KEY, in_child, set_mode};

const KEYS: [&str; 3] = [KEY, SECOND, THIRD];

fn watching() -> RefreshSettings {
    only_asked().with_file_watch()
}

fn of(source: impl Source + 'static, settings: RefreshSettings) -> Refresher<Kanal> {
    let refresher = Refresher::from_chain(Chain::<Kanal>::new().with(source), settings).unwrap();
    assert!(refresher.status().is_watching());
    // With this the reading at the start is done, so what is seen after it was seen by watching.
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    refresher
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    set_mode(path, 0o600);
}

/// Waits until the key is active.
#[track_caller]
fn takes(refresher: &Refresher<Kanal>, key: &str) {
    eventually("the key is seen", || has(&refresher.handle(), key));
}

/// As the kubelet does it: a new folder, a new link to it, and that renamed over `..data`; then the old
/// folder goes.
fn swap(volume: &Path, round: usize, key: &str) {
    let name = format!("..2026_11_24.{round}");
    fs::create_dir(volume.join(&name)).unwrap();
    write(&volume.join(&name).join("key"), key);
    let old = fs::read_link(volume.join("..data")).ok();
    symlink(&name, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

#[test]
fn every_kubernetes_swap_is_seen_and_none_is_a_failure_for_long() {
    let folder = Folder::new();
    swap(folder.path(), 0, KEY);
    symlink("..data/key", folder.at("key")).unwrap();
    let refresher = of(SecretFile::new(folder.at("key")), watching());
    for round in 1..60 {
        swap(folder.path(), round, KEYS[round % 3]);
        takes(&refresher, KEYS[round % 3]);
    }
    // The old folder may have gone while it was read; the next reading is good.
    eventually("it is well", || refresher.status().health().problem().is_none());
    assert!(refresher.status().is_watching());
}

#[test]
fn a_whole_volume_behind_links_is_followed() {
    let folder = Folder::new();
    for (release, key) in ["1", "2", "3"].into_iter().zip(KEYS) {
        fs::create_dir_all(folder.at("releases").join(release).join("config")).unwrap();
        write(&folder.at("releases").join(release).join("config/key"), key);
    }
    symlink("releases/1", folder.at("current")).unwrap();
    let refresher = of(SecretFile::new(folder.at("current/config/key")), watching());
    for (release, key) in [("2", SECOND), ("3", THIRD), ("1", KEY)] {
        symlink(format!("releases/{release}"), folder.at("new")).unwrap();
        fs::rename(folder.at("new"), folder.at("current")).unwrap();
        takes(&refresher, key);
    }
}

#[test]
fn editors_that_rename_and_those_that_write_in_place_are_seen() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let refresher = of(SecretFile::new(&path), watching());
    for round in 1..20 {
        let key = KEYS[round % 3];
        match round % 4 {
            // Written beside it and renamed over it.
            0 => {
                write(&folder.at("key.new"), key);
                fs::rename(folder.at("key.new"), &path).unwrap();
            }
            // Cut to nothing and written.
            1 => fs::write(&path, key).unwrap(),
            // Moved aside, and written again.
            2 => {
                fs::rename(&path, folder.at("key~")).unwrap();
                write(&path, key);
            }
            // Removed, and for a while not there.
            _ => {
                fs::remove_file(&path).unwrap();
                eventually("it is missed", || {
                    let status = refresher.status();
                    let problem = status.health().problem().map(|error| error.problem().clone());
                    problem == Some(ReloadProblem::Absent(Absence::NoFile))
                });
                write(&path, key);
            }
        }
        takes(&refresher, key);
    }
    eventually("it is well", || refresher.status().health().problem().is_none());
}

#[test]
fn a_mode_that_is_mended_is_seen() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let refresher = of(SecretFile::new(&path), watching());
    set_mode(&path, 0o666);
    eventually("it is refused", || {
        let status = refresher.status();
        let problem = status.health().problem().map(|error| error.problem().clone());
        problem == Some(ReloadProblem::Source(Problem::File(FileProblem::WritableByOthers { mode: 0o666 })))
    });
    assert!(has(&refresher.handle(), KEY));
    set_mode(&path, 0o600);
    eventually("it is well", || refresher.status().health().problem().is_none());
}

#[test]
fn a_folder_that_is_removed_and_made_again_is_watched_again() {
    let folder = Folder::new();
    let keys = folder.at("keys");
    fs::create_dir(&keys).unwrap();
    write(&keys.join("key"), KEY);
    let refresher = of(SecretFile::new(keys.join("key")), watching());
    for round in 1..10 {
        fs::remove_dir_all(&keys).unwrap();
        if round % 2 == 0 {
            eventually("it is missed", || refresher.status().health().problem().is_some());
        }
        assert!(has(&refresher.handle(), KEYS[(round - 1) % 3]), "the last good key");
        fs::create_dir(&keys).unwrap();
        write(&keys.join("key"), KEYS[round % 3]);
        takes(&refresher, KEYS[round % 3]);
        // And the new folder is watched as the old one was.
        write(&keys.join("key"), KEYS[(round + 1) % 3]);
        takes(&refresher, KEYS[(round + 1) % 3]);
        write(&keys.join("key"), KEYS[round % 3]);
        takes(&refresher, KEYS[round % 3]);
    }
}

#[test]
fn a_folder_that_is_moved_away_and_replaced_is_seen() {
    let folder = Folder::new();
    let keys = folder.at("keys");
    fs::create_dir(&keys).unwrap();
    write(&keys.join("key"), KEY);
    let refresher = of(SecretFile::new(keys.join("key")), watching());
    fs::create_dir(folder.at("new")).unwrap();
    write(&folder.at("new/key"), SECOND);
    fs::rename(&keys, folder.at("old")).unwrap();
    fs::rename(folder.at("new"), &keys).unwrap();
    takes(&refresher, SECOND);
    eventually("all events of it have come", || {
        let since = refresher.status().health().last_success();
        thread::sleep(Duration::from_millis(200));
        refresher.status().health().last_success() == since
    });
    // What happens in the folder that was moved away does not matter.
    let since = refresher.status().health().last_success();
    write(&folder.at("old/key"), THIRD);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(refresher.status().health().last_success(), since, "the old folder is still watched");
    write(&keys.join("key"), KEY);
    takes(&refresher, KEY);
}

#[test]
fn the_file_of_a_variable_a_credential_and_a_dotenv_are_watched() {
    let folder = Folder::new();
    let path = folder.write("kanal", KEY);
    let child = Child::new("the_file_of_a_variable_a_credential_and_a_dotenv_are_watched");
    child.var("SHOP_FILE", &path).var("CREDENTIALS_DIRECTORY", folder.path()).run(|| {
        let folder = std::path::PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY").unwrap());
        let by_variable = of(SecretFile::named_by_variable("SHOP"), watching());
        let by_systemd = of(SecretFile::systemd_credential("kanal"), watching());
        write(&folder.join("kanal"), SECOND);
        takes(&by_variable, SECOND);
        takes(&by_systemd, SECOND);
        #[cfg(feature = "dotenv")]
        {
            let path = folder.join(".env");
            write(&path, &format!("KANAL_API_KEY={KEY}\n"));
            let by_dotenv = of(keysheath::source::DotenvFile::new(&path, "KANAL_API_KEY"), watching());
            write(&path, &format!("# rotated\nKANAL_API_KEY={SECOND}\n"));
            takes(&by_dotenv, SECOND);
        }
        // A relative path is one from here.
        std::env::set_current_dir(&folder).unwrap();
        let relative = of(SecretFile::new("kanal"), watching());
        write(&folder.join("kanal"), THIRD);
        takes(&relative, THIRD);
    });
}

#[test]
fn a_file_stores_document_is_watched_before_it_exists() {
    let folder = Folder::new();
    let path = folder.at("keys");
    let events = Events::default();
    let refresher = Refresher::<Kanal>::from_store(FileStore::new(&path), events.record(watching())).unwrap();
    assert!(refresher.status().is_watching());
    let (writer, keys) = (FileStore::new(&path), key_set(&[]));
    for key in KEYS {
        activate(&keys, key);
        persist(&writer, &keys.to_document());
        takes(&refresher, key);
    }
    assert_eq!(events.failures(), 0, "{:?}", events.all());
}

#[test]
fn reading_it_and_its_neighbors_cause_no_reload() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let refresher = of(SecretFile::new(&path), watching());
    let since = refresher.status().health().last_success();
    for round in 0..50 {
        assert_eq!(fs::read_to_string(&path).unwrap(), KEY);
        folder.write("neighbor", round.to_string());
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(Duration::from_millis(200));
    assert_eq!(refresher.status().health().last_success(), since, "it was read again");
    folder.write("key", SECOND);
    takes(&refresher, SECOND);
}

#[test]
fn a_place_that_is_no_file_has_nothing_to_watch_and_is_polled() {
    let source = Scripted::new(KEY);
    let chain = Chain::<Kanal>::new().with(source.clone());
    let refresher = Refresher::from_chain(chain, quick().with_file_watch()).unwrap();
    assert_eq!(refresher.status().watch_problem(), Some(WatchProblem::NotAFile));
    let shown = refresher.status().to_string();
    assert!(shown.ends_with("it is not a file, so there is nothing to watch"), "{shown}");
    source.gives(SECOND);
    takes(&refresher, SECOND);
    let store = Refresher::<Kanal>::from_store(MemoryStore::new(), quick().with_file_watch()).unwrap();
    assert_eq!(store.status().watch_problem(), Some(WatchProblem::NotAFile));
}

#[test]
fn without_being_asked_for_nothing_is_watched() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
    let refresher = Refresher::from_chain(chain, only_asked()).unwrap();
    let status = refresher.status();
    assert!(!status.is_watching() && status.watch_problem().is_none(), "{status}");
    folder.write("key", SECOND);
    thread::sleep(Duration::from_millis(200));
    assert!(has(&refresher.handle(), KEY));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
}

#[test]
fn without_file_watching_polling_goes_on_and_the_status_says_so() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let name = "without_file_watching_polling_goes_on_and_the_status_says_so";
    in_child::<&str>(name, &[], || {
        let folder = Folder::new();
        let path = folder.write("key", KEY);
        // Two files may be opened: too few for a watcher, which needs three at once, and enough for the key.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: limit.maximum }).unwrap();
        let mut full: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        full.truncate(full.len() - 2);
        let events = Events::default();
        let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
        let refresher = Refresher::from_chain(chain, events.record(quick().with_file_watch())).unwrap();
        eventually("it is reported", || {
            events.count(|event| {
                matches!(event, RefreshEvent::NotWatching { problem: WatchProblem::TooMany, .. })
            }) == 1
        });
        assert_eq!(refresher.status().watch_problem(), Some(WatchProblem::TooMany));
        assert!(refresher.status().to_string().contains("max_user_instances"), "{}", refresher.status());
        // An attempt that fails may hold what was left just now.
        eventually("there is room for one file", || fs::write(&path, SECOND).is_ok());
        takes(&refresher, SECOND);
        // Once there is room, it is watched: no more is needed than the next poll.
        setrlimit(Resource::Nofile, limit).unwrap();
        eventually("it is watched", || refresher.status().is_watching());
        // And that is reported as well, once.
        eventually("it is taken back", || {
            events.count(|event| matches!(event, RefreshEvent::WatchingAgain { .. })) == 1
        });
    });
}

/// The watchers that this process has.
fn instances() -> usize {
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    open.filter(|target| target.to_string_lossy().contains("inotify")).count()
}

#[test]
fn two_hundred_refreshers_share_one_watcher() {
    in_child::<&str>("two_hundred_refreshers_share_one_watcher", &[], || {
        let folder = Folder::new();
        let mut refreshers = Vec::new();
        for number in 0..200 {
            // Some share a folder, and some have their own.
            let at = folder.at(&format!("keys-{}", number % 120));
            fs::create_dir_all(&at).unwrap();
            let path = at.join(format!("key-{number}"));
            write(&path, KEY);
            let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
            refreshers.push((path, Refresher::from_chain(chain, watching()).unwrap()));
        }
        for (_, refresher) in &refreshers {
            assert!(refresher.status().is_watching(), "{}", refresher.status());
        }
        assert_eq!(instances(), 1);
        for (path, refresher) in &refreshers {
            write(path, SECOND);
            takes(refresher, SECOND);
        }
        // Those that go take nothing from those that stay.
        let (stay, go): (Vec<_>, Vec<_>) =
            refreshers.into_iter().enumerate().partition(|(number, _)| number % 3 == 0);
        drop(go);
        for (_, (path, refresher)) in &stay {
            write(path, THIRD);
            takes(refresher, THIRD);
        }
        assert_eq!(instances(), 1);
        drop(stay);
        eventually("the watcher goes with the last of them", || instances() == 0);
    });
}

#[test]
fn fast_swaps_are_never_told_as_a_folder_that_cannot_be_watched() {
    let folder = Folder::new();
    swap(folder.path(), 0, KEY);
    symlink("..data/key", folder.at("key")).unwrap();
    let events = Events::default();
    let refreshers: Vec<_> = (0..4)
        .map(|_| of(SecretFile::new(folder.at("key")), events.record(quick().with_file_watch())))
        .collect();
    let start = std::time::Instant::now();
    let mut round = 0;
    while start.elapsed() < Duration::from_secs(5) {
        round += 1;
        swap(folder.path(), round, KEYS[round % 3]);
        for refresher in &refreshers {
            assert!(refresher.status().is_watching(), "after {round} swaps");
        }
    }
    swap(folder.path(), round + 1, SECOND);
    for refresher in &refreshers {
        takes(refresher, SECOND);
        eventually("it is well", || refresher.status().health().problem().is_none());
        assert!(refresher.status().is_watching());
    }
    assert_eq!(events.count(|event| matches!(event, RefreshEvent::NotWatching { .. })), 0, "{round} swaps");
}

#[test]
fn two_paths_to_one_folder_are_both_watched() {
    let folder = Folder::new();
    let (keys, path) = (folder.at("keys"), folder.at("keys/key"));
    fs::create_dir(&keys).unwrap();
    write(&path, KEY);
    symlink("keys", folder.at("link")).unwrap();
    let direct = of(SecretFile::new(&path), watching());
    let linked = of(SecretFile::new(folder.at("link/key")), watching());
    for key in [SECOND, THIRD] {
        write(&path, key);
        takes(&direct, key);
        takes(&linked, key);
    }
    drop(direct);
    // The folder is made again, while one of its users has gone.
    fs::remove_dir_all(&keys).unwrap();
    fs::create_dir(&keys).unwrap();
    write(&path, KEY);
    takes(&linked, KEY);
    write(&path, SECOND);
    takes(&linked, SECOND);
}
