//! Reading the registry's index without a lock, under loom: every order of steps, and every value that a
//! processor may still see.

#![allow(dead_code, reason = "the crate uses more of this file than the models do")]

#[path = "../../src/registry/version.rs"]
mod version;

/// In the place of `sync` in `src/registry.rs`.
mod sync {
    pub(super) use loom::hint::spin_loop as pause;
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    pub(super) use loom::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

    /// Few, so that waiting for the writer is tried too.
    pub(super) const RETRIES: u32 = 2;

    pub(super) fn recover<T>(result: std::sync::LockResult<T>) -> T {
        result.unwrap()
    }
}

use loom::sync::Arc;
use loom::thread;

use sync::{AtomicU64, Ordering};
use version::Versioned;

/// Words that always change together.
struct Words {
    versioned: Versioned<()>,
    words: [AtomicU64; 2],
}

impl Words {
    fn new() -> Arc<Self> {
        Arc::new(Self { versioned: Versioned::new(()), words: [AtomicU64::new(0), AtomicU64::new(0)] })
    }

    fn change(&self, value: u64) {
        let store = |word: &AtomicU64| word.store(value, Ordering::Relaxed);
        self.versioned.write().change(|()| self.words.iter().for_each(store));
    }

    fn read(&self) -> u64 {
        let [first, second] =
            self.versioned.read(|| self.words.each_ref().map(|word| word.load(Ordering::Relaxed)));
        assert_eq!(first, second, "a mixture of two changes");
        first
    }
}

/// Two changes and a reader have too many orders: those with at most three preemptions are tried.
fn check(model: fn()) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(3);
    checker.check(model);
}

#[test]
fn a_reader_sees_each_change_as_a_whole() {
    check(|| {
        let words = Words::new();
        let writer = {
            let words = Arc::clone(&words);
            thread::spawn(move || (1..=2).for_each(|value| words.change(value)))
        };
        words.read();
        writer.join().unwrap();
        assert_eq!(words.read(), 2);
    });
}

/// P10: whoever learns that a change has returned sees the change.
#[test]
fn a_change_that_has_returned_is_seen() {
    check(|| {
        let (words, has_returned) = (Words::new(), Arc::new(AtomicU64::new(0)));
        let writer = {
            let (words, has_returned) = (Arc::clone(&words), Arc::clone(&has_returned));
            thread::spawn(move || {
                words.change(1);
                has_returned.store(1, Ordering::Release);
            })
        };
        if has_returned.load(Ordering::Acquire) == 1 {
            assert_eq!(words.read(), 1);
        }
        writer.join().unwrap();
    });
}

#[test]
fn two_writers_take_turns() {
    check(|| {
        let words = Words::new();
        let other = {
            let words = Arc::clone(&words);
            thread::spawn(move || words.change(1))
        };
        words.change(2);
        let seen = words.read();
        assert!(seen == 1 || seen == 2);
        other.join().unwrap();
    });
}
