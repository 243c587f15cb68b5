//! The threads that are kept for the next loads: how many, and what a program sees of them.

use std::fs;
use std::time::Duration;

use keysheath::source::{Command, SecretFile};

use crate::support::child::in_child;
use crate::support::forked::forked;
use crate::support::{Folder, KEY, assert_gives_the_key};

/// How many threads of sources this process has, once those that end have ended.
fn threads() -> usize {
    let count = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("keysheath")).count()
    };
    // A thread ends a moment after its outcome is there.
    let mut counted = count();
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(1));
        counted = counted.min(count());
    }
    counted
}

#[test]
fn one_load_leaves_no_thread_and_many_leave_two_at_most() {
    let test = "one_load_leaves_no_thread_and_many_leave_two_at_most";
    in_child::<&str>(test, &[], || {
        let folder = Folder::new();
        let path = folder.write("key", KEY);
        assert_gives_the_key(&SecretFile::new(&path));
        assert_eq!(threads(), 0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| assert_gives_the_key(&SecretFile::new(&path))));
            }
        });
        assert!((1..=2).contains(&threads()));
    });
}

#[test]
fn a_program_is_run_on_a_thread_of_its_own() {
    in_child::<&str>("a_program_is_run_on_a_thread_of_its_own", &[], || {
        for _ in 0..3 {
            assert_gives_the_key(&Command::new("printf").args([KEY]));
        }
        assert_eq!(threads(), 0);
    });
}

#[test]
fn a_forked_child_loads_on_threads_of_its_own() {
    in_child::<&str>("a_forked_child_loads_on_threads_of_its_own", &[], || {
        let folder = Folder::new();
        let path = folder.write("key", KEY);
        let load = || assert_gives_the_key(&SecretFile::new(&path).with_deadline(Duration::from_secs(5)));
        (0..10).for_each(|_| load());
        assert_ne!(threads(), 0);
        let status = forked(|| {
            (0..10).for_each(|_| load());
            true
        });
        assert_eq!(status, Some(0));
        load();
    });
}
