//! Every order of steps.

#![allow(dead_code, reason = "the crate uses more of these files than the models do")]

#[path = "../../src/handle/core.rs"]
mod core;
#[path = "events.rs"]
mod events;
#[path = "models.rs"]
mod models;
#[path = "../../src/internal/timer/ready.rs"]
mod ready;
#[path = "tasks.rs"]
mod tasks;

/// In the place of `src/handle/sync.rs`, and of the module of that name in `src/internal/timer.rs`.
mod sync {
    pub(super) use super::events::{Event, EventListener, Guard, Swap, lock, wait, wait_on};
    pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
}

use loom::future::block_on;
use loom::thread;

fn check(model: fn()) {
    // The models are small enough to be tried out to the end, without a bound on preemptions.
    loom::model(model);
}

/// With three threads there are too many orders: those with at most two preemptions are tried.
fn check_bounded(model: fn()) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(2);
    checker.check(model);
}

#[test]
fn a_reader_never_sees_a_generation_go_back() {
    check(models::a_reader_never_sees_a_generation_go_back);
}

#[test]
fn a_stale_publication_never_brings_a_previous_key_back() {
    check(models::a_stale_publication_never_brings_a_previous_key_back);
}

#[test]
fn two_writers_do_not_lose_each_other() {
    check(models::two_writers_do_not_lose_each_other);
}

#[test]
fn a_caller_is_answered_by_an_attempt_that_began_later() {
    check(models::a_caller_is_answered_by_an_attempt_that_began_later);
}

#[test]
fn an_attempt_s_answer_reaches_every_waiter() {
    check(models::an_attempt_s_answer_reaches_every_waiter);
}

#[test]
fn a_caller_is_told_when_the_reloader_leaves() {
    check(models::a_caller_is_told_when_the_reloader_leaves);
}

#[test]
fn an_attempt_of_a_reloader_that_leaves_is_made_by_another() {
    check_bounded(models::an_attempt_of_a_reloader_that_leaves_is_made_by_another);
}

#[test]
fn an_attempt_of_a_reloader_that_has_left_may_end_late() {
    check_bounded(models::an_attempt_of_a_reloader_that_has_left_may_end_late);
}

#[test]
fn a_key_that_comes_before_the_reloader_leaves_is_not_missed() {
    check(models::a_key_that_comes_before_the_reloader_leaves_is_not_missed);
}

#[test]
fn a_publication_without_an_attempt_reaches_every_waiter() {
    check(models::a_publication_without_an_attempt_reaches_every_waiter);
}

#[test]
fn drained_means_that_nothing_holds_the_old_generation() {
    check(models::drained_means_that_nothing_holds_the_old_generation);
}

#[test]
fn a_future_is_woken_as_a_thread_is() {
    check(models::a_future_is_woken_as_a_thread_is);
}

#[test]
fn a_wake_up_is_not_lost() {
    check(tasks::a_wake_up_is_not_lost);
}

#[test]
fn news_during_a_poll_have_the_task_polled_again() {
    check(tasks::news_during_a_poll_have_the_task_polled_again);
}

#[test]
fn a_task_that_comes_as_the_thread_ends_is_not_lost() {
    check(tasks::a_task_that_comes_as_the_thread_ends_is_not_lost);
}
