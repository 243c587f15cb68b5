//! A file that has stayed the same for long: it is looked at and not read, and every change of it is seen.

use std::fs::{self, File};
use std::time::Duration;

use super::of_file;
use crate::support::refreshing::{SECOND, THIRD, eventually, has, quick};
use crate::support::{Folder, KEY};

/// Longer than it takes until a later write shows in a file's times.
const SETTLED: Duration = Duration::from_millis(4200);

#[test]
fn a_change_of_the_same_length_with_the_same_time_is_seen() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let refresher = of_file(&folder, quick());
    for key in [SECOND, THIRD] {
        std::thread::sleep(SETTLED);
        let modified = path.metadata().unwrap().modified().unwrap();
        folder.write("key", key);
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        eventually("it is seen", || has(&refresher.handle(), key));
    }
}

#[test]
fn a_swapped_link_is_seen_where_nothing_else_changed() {
    let folder = Folder::new();
    for (name, key) in [("one", KEY), ("two", SECOND)] {
        fs::create_dir(folder.at(name)).unwrap();
        folder.write(&format!("{name}/key"), key);
    }
    std::os::unix::fs::symlink("one", folder.at("now")).unwrap();
    std::os::unix::fs::symlink("now/key", folder.at("key")).unwrap();
    let refresher = of_file(&folder, quick());
    std::thread::sleep(SETTLED);
    assert!(has(&refresher.handle(), KEY));
    std::os::unix::fs::symlink("two", folder.at("new")).unwrap();
    fs::rename(folder.at("new"), folder.at("now")).unwrap();
    eventually("it is seen", || has(&refresher.handle(), SECOND));
}

#[test]
fn a_file_that_others_may_write_by_now_is_an_error() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let refresher = of_file(&folder, quick());
    std::thread::sleep(SETTLED);
    assert!(refresher.status().health().problem().is_none());
    crate::support::set_mode(&path, 0o666);
    eventually("it is refused", || refresher.status().health().problem().is_some());
}
