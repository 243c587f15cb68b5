//! A process whose wall clock a test moves, while its monotonic clock goes on as it does.
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::{Child, Folder};

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    found.expect("faketime is not installed: run scripts/setup")
}

/// The child with a wall clock that [`set`] moves.
pub(crate) fn with_clock(child: Child, folder: &Folder) -> Child {
    set(folder, "+0");
    child
        .var("LD_PRELOAD", library())
        .var("FAKETIME_TIMESTAMP_FILE", folder.at("clock"))
        .var("FAKETIME_NO_CACHE", "1")
        .var("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// In such a child: prints `ready` and the time, and blocks until the test has moved the clock on by an hour
/// or more.
pub(crate) fn wait_for_a_jump(ready: &str) {
    // Before the test is notified, which then moves the clock.
    let start = SystemTime::now();
    println!("{ready} {start:?}");
    let end = Instant::now() + Duration::from_secs(60);
    while SystemTime::now().duration_since(start).unwrap_or_default() < Duration::from_secs(3600) {
        assert!(Instant::now() < end, "the clock was not set");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Moves the wall clocks of the children with a clock in this folder, such as by `+2h`.
pub(crate) fn set(folder: &Folder, offset: &str) {
    folder.write("clock", offset);
}
