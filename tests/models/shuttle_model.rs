//! Many orders of more steps than can be tried out.

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
    pub(super) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
}

use shuttle::future::block_on;
use shuttle::thread;

const ORDERS: usize = 2_000;

fn check(model: fn()) {
    shuttle::check_random(model, ORDERS);
    shuttle::check_pct(model, ORDERS, 3);
}

#[test]
fn the_models_that_loom_tries_out() {
    for model in [
        models::a_reader_never_sees_a_generation_go_back,
        models::a_stale_publication_never_brings_a_previous_key_back,
        models::two_writers_do_not_lose_each_other,
        models::a_caller_is_answered_by_an_attempt_that_began_later,
        models::an_attempt_s_answer_reaches_every_waiter,
        models::a_caller_is_told_when_the_reloader_leaves,
        models::an_attempt_of_a_reloader_that_leaves_is_made_by_another,
        models::an_attempt_of_a_reloader_that_has_left_may_end_late,
        models::a_key_that_comes_before_the_reloader_leaves_is_not_missed,
        models::a_publication_without_an_attempt_reaches_every_waiter,
        models::drained_means_that_nothing_holds_the_old_generation,
        models::a_future_is_woken_as_a_thread_is,
        tasks::a_wake_up_is_not_lost,
        tasks::news_during_a_poll_have_the_task_polled_again,
        tasks::a_task_that_comes_as_the_thread_ends_is_not_lost,
    ] {
        check(model);
    }
}

#[test]
fn a_loaded_handle() {
    check(models::a_loaded_handle);
}

#[test]
fn many_tasks_that_wake_each_other() {
    check(tasks::many_tasks_that_wake_each_other);
}
