//! Many refreshers in one process: their threads, and that none delays another.

use std::fs;
use std::time::Duration;

use keysheath::Cadence;
use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::source::SecretFile;

use crate::support::refreshing::{
    Gate, PATIENCE, SECOND, Scripted, THIRD, ask, eventually, has, of, only_asked, text,
};
use crate::support::{Folder, KEY, in_child};

const MANY: usize = 200;

const POLL: Duration = Duration::from_secs(1);

/// How many more threads than none they may have: that of all tasks, that of the watcher, and those of two
/// calls.
const MORE: usize = 4;

/// How many threads this process has.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits until there are so few. A call that ends soon may have one for an instant.
#[track_caller]
fn few(before: usize) {
    eventually("there are few threads", || threads() <= before + MORE);
}

fn write(folder: &Folder, key: &str) {
    for number in 0..MANY {
        folder.write("new", key);
        fs::rename(folder.at("new"), folder.at(&number.to_string())).unwrap();
    }
}

fn start(folder: &Folder, settings: &RefreshSettings) -> Vec<Refresher<Kanal>> {
    let file = |number: usize| SecretFile::new(folder.at(&number.to_string()));
    let chain = |number| Chain::<Kanal>::new().with(file(number));
    (0..MANY).map(|number| Refresher::from_chain(chain(number), settings.clone()).unwrap()).collect()
}

fn all_have(refreshers: &[Refresher<Kanal>], key: &str) -> bool {
    refreshers.iter().all(|refresher| has(&refresher.handle(), key))
}

#[test]
fn many_refreshers_have_few_threads() {
    in_child::<&str>("many::many_refreshers_have_few_threads", &[], || {
        let folder = Folder::new();
        write(&folder, KEY);
        let before = threads();
        let refreshers = start(&folder, &RefreshSettings::new().with_cadence(Cadence::every(POLL)));
        few(before);
        let since: Vec<_> = refreshers.iter().map(|it| it.status().health().last_success()).collect();
        let is_polled =
            || refreshers.iter().zip(&since).all(|(it, since)| it.status().health().last_success() > *since);
        eventually("each is polled", is_polled);
        few(before);
        write(&folder, SECOND);
        eventually("each takes its key", || all_have(&refreshers, SECOND));
        few(before);
        for refresher in &refreshers {
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
        }
        few(before);
        drop(refreshers);
        eventually("none is left but kept workers", || threads() <= before + 2);
    });
}

#[cfg(feature = "watch")]
#[test]
fn many_watched_files_have_one_watcher() {
    in_child::<&str>("many::many_watched_files_have_one_watcher", &[], || {
        let folder = Folder::new();
        write(&folder, KEY);
        let before = threads();
        let refreshers = start(&folder, &only_asked().with_file_watch());
        assert!(refreshers.iter().all(|refresher| refresher.status().is_watching()));
        few(before);
        // All at once.
        for key in [SECOND, THIRD] {
            write(&folder, key);
            eventually("each takes its key", || all_have(&refreshers, key));
            few(before);
        }
    });
}

#[test]
fn a_place_that_hangs_delays_no_other_refresher() {
    let folder = Folder::new();
    write(&folder, KEY);
    let (source, gate) = (Scripted::new(KEY), Gate::default());
    let hanging: Vec<_> = (0..3).map(|_| of(&source, only_asked().with_deadline(PATIENCE))).collect();
    let refreshers = start(&folder, &only_asked());
    let passes = gate.clone();
    source.does(move |_| {
        passes.pass();
        Ok(text(SECOND))
    });
    for refresher in &hanging {
        let handle = refresher.handle();
        handle.report_refused(handle.load().unwrap().generation());
    }
    eventually("they hang", || source.calls() == 6);
    write(&folder, SECOND);
    for refresher in &refreshers {
        assert_eq!(ask(&refresher.handle()), Reload::Newer);
    }
    assert!(hanging.iter().all(|refresher| has(&refresher.handle(), KEY)), "they have not hung");
    gate.open();
    eventually("those take theirs", || all_have(&hanging, SECOND));
}
