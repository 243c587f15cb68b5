//! A keychain's daemon that ends and comes back, under calls that wait for it.

use keysheath::source::CallError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

#[test]
fn unanswered_prompts_leave_nothing_when_the_daemon_exits() {
    in_session("restarts::unanswered_prompts_leave_nothing_when_the_daemon_exits", || {
        let mut service = Bus::start_with_silent_prompter().with_daemon();
        save(&patient(), "kanal", KEY).unwrap();
        service.lock();
        let asking: Vec<_> = (0..MAX_CALLS_PER_PLACE)
            .map(|_| std::thread::spawn(|| load(&Keychain::new().with_deadline(Duration::MAX), "kanal")))
            .collect();
        service.wait_for_prompt();
        std::thread::sleep(SHORT);
        // The daemon is killed, and comes back unlocked: what waited for the prompt of the old one asks the
        // new one.
        service.restart();
        for asking in asking {
            let outcome = asking.join().unwrap();
            assert!(matches!(outcome, Ok(Loaded::Found(_)) | Err(_)), "{outcome:?}");
        }
        assert_holds(&patient(), "kanal", KEY);
    });
}

#[test]
fn prompts_that_were_given_up_do_not_keep_a_good_keychain_away() {
    in_session("restarts::prompts_that_were_given_up_do_not_keep_a_good_keychain_away", || {
        let mut service = Bus::start_with_silent_prompter().with_daemon();
        save(&patient(), "kanal", KEY).unwrap();
        service.lock();
        // More than may hang.
        for _ in 0..2 * MAX_CALLS_PER_PLACE {
            assert_eq!(
                problem(load(&impatient(), "kanal")),
                Problem::Call(CallError::Deadline { after: SHORT })
            );
        }
        service.restart();
        assert_holds(&patient(), "kanal", KEY);
    });
}

/// How many threads this process has for keychains: each open one has its own.
fn threads_of_the_keychain() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("there is this process");
    let names = tasks.map(|task| std::fs::read_to_string(task.expect("a task").path().join("comm")));
    names.filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("keysheath-"))).count()
}

/// Says that a test is over, also when it panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn loads_under_many_restarts_of_the_daemon_are_good_after_each() {
    const RESTARTS: usize = 12;
    in_session("restarts::loads_under_many_restarts_of_the_daemon_are_good_after_each", || {
        let mut service = Bus::start_with_silent_prompter().with_daemon();
        save(&patient(), "kanal", KEY).unwrap();
        let (is_over, good, bad) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let _over = Over(&is_over);
            for _ in 0..8 {
                scope.spawn(|| {
                    // Longer than the daemon needs, so that what hangs past it hangs.
                    let keychain = Keychain::new().with_deadline(Duration::from_secs(5));
                    while !is_over.load(Ordering::Relaxed) {
                        let is_good = matches!(load(&keychain, "kanal"), Ok(Loaded::Found(_)));
                        if is_good { &good } else { &bad }.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
            for round in 0..RESTARTS {
                if round % 2 == 0 {
                    // Some of the calls are at a prompt when the daemon ends.
                    service.lock();
                    std::thread::sleep(Duration::from_millis(200));
                }
                service.restart();
                // Not after a while: the first calls that are made now.
                for _ in 0..MAX_CALLS_PER_PLACE {
                    assert_holds(&patient(), "kanal", KEY);
                }
            }
        });
        println!("{} loads were good, {} were not", good.into_inner(), bad.into_inner());
        for _ in 0..MAX_CALLS_PER_PLACE {
            assert_holds(&patient(), "kanal", KEY);
        }
        // What was opened for all of them is closed.
        eventually(|| threads_of_the_keychain() == 0);
    });
}
