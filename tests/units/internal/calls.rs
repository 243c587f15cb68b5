//! A process-wide count is under test, so each test has a place of its own.

use std::sync::{Barrier, Mutex, mpsc};
use std::thread;

use super::super::{Caller, Turn};
use super::*;

/// A place that no other test calls.
fn place(name: &str) -> Target {
    Target::of("test", &name)
}

#[test]
fn work_that_hangs_is_left_behind_counted_and_bounded() {
    let place = place("hangs");
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    for _ in 0..MAX_CALLS_PER_PLACE {
        let held = Arc::clone(&held);
        let worker = Caller::new().with_deadline(Duration::from_millis(20));
        let outcome = worker.run(place, move || drop(held.lock().map(|held| held.recv())));
        assert!(matches!(outcome, Err(CallError::Deadline { .. })));
    }
    let stuck = Caller::new().run(place, || ());
    assert_eq!(stuck, Err(CallError::Stuck { count: MAX_CALLS_PER_PLACE }));
    assert_eq!(Caller::new().run(Target::of("test", &"another"), || 7), Ok(7));
    drop(release);
    let patience = Instant::now() + Duration::from_secs(10);
    while Caller::new().run(place, || ()).is_err() {
        assert!(Instant::now() < patience, "the calls were not counted off");
    }
}

#[test]
fn many_calls_at_once_take_turns_and_all_are_answered() {
    let place = place("turns");
    let at_once = Arc::new(Mutex::new((0, 0)));
    thread::scope(|scope| {
        for _ in 0..40 {
            let at_once = Arc::clone(&at_once);
            scope.spawn(move || {
                let outcome = Caller::new().run(place, move || {
                    let mut counts = at_once.lock().unwrap();
                    counts.0 += 1;
                    counts.1 = counts.1.max(counts.0);
                    drop(counts);
                    thread::sleep(Duration::from_millis(5));
                    at_once.lock().unwrap().0 -= 1;
                    at_once.lock().unwrap().1
                });
                assert!(outcome.unwrap() <= MAX_CALLS_PER_PLACE);
            });
        }
    });
    assert!(!calls().places.contains_key(&place.name), "every call was counted off");
}

#[test]
fn calls_that_return_never_count_as_hanging() {
    let place = place("many");
    let barrier = Barrier::new(64);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..100 {
                    assert_eq!(Caller::new().run(place, || 7), Ok(7));
                }
            });
        }
    });
}

#[test]
fn a_call_that_waits_for_its_turn_keeps_its_deadline() {
    let place = place("waits");
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    thread::scope(|scope| {
        for _ in 0..MAX_CALLS_PER_PLACE {
            let held = Arc::clone(&held);
            scope.spawn(move || Caller::new().run(place, move || drop(held.lock().map(|held| held.recv()))));
        }
        while calls().places.get(&place.name).is_none_or(|count| count.under_way < MAX_CALLS_PER_PLACE) {
            thread::yield_now();
        }
        let after = Duration::from_millis(20);
        let outcome = Caller::new().with_deadline(after).run(place, || ());
        assert_eq!(outcome, Err(CallError::Queued { waited: after, under_way: MAX_CALLS_PER_PLACE }));
        drop(release);
    });
    assert_eq!(Caller::new().run(place, || 7), Ok(7));
}

#[test]
fn a_call_is_under_way_until_its_last_thread_has_ended() {
    let place = place("threads");
    let (release, held) = mpsc::channel::<()>();
    let outcome = Caller::new()
        .run_with(place, Duration::ZERO, move |turn| turn.spawn(move || held.recv().is_err()).unwrap());
    let counts = calls().places.get(&place.name).map(|count| (count.under_way, count.left_behind));
    assert_eq!(counts, Some((1, 1)));
    drop(release);
    assert_eq!(outcome.unwrap().recv(), Ok(true));
}

#[test]
fn work_that_panics_is_an_error_and_does_not_count_as_stuck() {
    let place = place("panics");
    for _ in 0..=MAX_CALLS_PER_PLACE {
        let outcome: Result<(), CallError> =
            Caller::new().run(place, || std::panic::resume_unwind(Box::new(())));
        assert_eq!(outcome, Err(CallError::Panicked));
    }
    assert_eq!(Caller::new().run(place, || 7), Ok(7));
}

#[test]
fn a_panic_whose_payload_panics_again_ends_no_process() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropping what a panic carried fails");
        }
    }
    let place = place("payload");
    let outcome: Result<(), CallError> =
        Caller::new().run(place, || std::panic::resume_unwind(Box::new(PanicsWhenDropped)));
    assert_eq!(outcome, Err(CallError::Panicked));
    assert_eq!(Caller::new().run(place, || 7), Ok(7));
}

#[test]
fn places_that_hang_take_no_turn_from_the_others() {
    // More than there are turns in all.
    let held: Vec<_> = (0..=MAX_CALLS / MAX_CALLS_PER_PLACE)
        .map(|number| hang(Target::of("test beside", &number), MAX_CALLS_PER_PLACE))
        .collect();
    assert_eq!(Caller::new().with_deadline(Duration::from_secs(5)).run(place("beside"), || 7), Ok(7));
    drop(held);
}

#[cfg(feature = "rotation")]
#[test]
fn calls_around_others_leave_every_turn_to_those() {
    let gate = Arc::new(Barrier::new(2 * MAX_CALLS + 1));
    let calls: Vec<_> = (0..2 * MAX_CALLS)
        .map(|number| {
            let gate = Arc::clone(&gate);
            let outer = Target::of("test around", &number);
            thread::spawn(move || {
                Caller::around_others().run(outer, move || {
                    gate.wait();
                    Caller::new().run(Target::of("test within", &number), || 7)
                })
            })
        })
        .collect();
    // All of them are under way now, and none has made its own call.
    gate.wait();
    for call in calls {
        assert_eq!(call.join().unwrap(), Ok(Ok(7)));
    }
}

#[test]
fn a_deadline_beyond_the_clock_is_no_panic() {
    let worker = Caller::new().with_deadline(Duration::MAX);
    assert_eq!(worker.run(place("clock"), || 7), Ok(7));
}

/// Hangs `count` calls to a place, each left behind, until what is given back is dropped.
fn hang(place: Target, count: usize) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let mut hanging = 0;
    while hanging < count {
        let held = Arc::clone(&held);
        let worker = Caller::new().with_deadline(Duration::from_millis(5));
        match worker.run(place, move || drop(held.lock().map(|held| held.recv()))) {
            Err(CallError::Deadline { .. } | CallError::LateTurn { .. }) => hanging += 1,
            // The calls of other tests were in the way.
            Err(CallError::Queued { .. }) => {}
            outcome => panic!("{outcome:?}"),
        }
    }
    release
}

/// Lets a time pass since the last call to a place was given up.
fn rest(place: Target, time: Duration) {
    let mut calls = calls();
    let last = &mut calls.places.get_mut(&place.name).unwrap().left_last;
    *last = last.and_then(|last| last.checked_sub(time));
}

#[test]
fn a_place_whose_calls_never_return_is_tried_again_in_time() {
    let place = place("half-open");
    let _held = hang(place, MAX_CALLS_PER_PLACE);
    let stuck = |count| Err(CallError::Stuck { count });
    assert_eq!(Caller::new().run(place, || 7), stuck(MAX_CALLS_PER_PLACE));
    rest(place, REST);
    // One call tries, and hangs as well: the next rest is twice as long.
    let _held_too = hang(place, 1);
    rest(place, REST);
    assert_eq!(Caller::new().run(place, || 7), stuck(MAX_CALLS_PER_PLACE + 1));
    rest(place, REST);
    // One that answers opens the place for all.
    for _ in 0..100 {
        assert_eq!(Caller::new().run(place, || 7), Ok(7));
    }
    // Four more may hang before it is left alone again.
    let _held_again = hang(place, MAX_CALLS_PER_PLACE);
    assert_eq!(Caller::new().run(place, || 7), stuck(MAX_CALLS_PER_PLACE));
}

#[test]
fn a_stuck_place_is_tried_by_one_call_at_a_time() {
    let place = place("one try");
    let held = hang(place, MAX_CALLS_PER_PLACE);
    rest(place, REST);
    let (release, gate) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let trying = scope.spawn(move || Caller::new().run(place, move || gate.recv().is_err()));
        while calls().places[&place.name].under_way == MAX_CALLS_PER_PLACE {
            thread::yield_now();
        }
        assert_eq!(Caller::new().run(place, || 7), Err(CallError::Stuck { count: MAX_CALLS_PER_PLACE }));
        drop(release);
        assert_eq!(trying.join().unwrap(), Ok(true));
    });
    drop(held);
    assert_eq!(Caller::new().run(place, || 7), Ok(7));
}

#[test]
fn the_rest_of_a_stuck_place_doubles_and_never_overflows() {
    for hanging in [MAX_CALLS_PER_PLACE, MAX_CALLS_PER_PLACE + 3, 1000, usize::MAX] {
        let count =
            |last| Count { under_way: hanging, left_behind: hanging, left_last: last, ..Count::default() };
        assert!(matches!(count(Some(Instant::now())).may(), May::GiveUp { .. }));
        assert!(matches!(count(None).may(), May::Go));
    }
}

#[test]
fn calls_take_their_turn_in_the_order_of_arrival() {
    let place = place("order");
    let order = Arc::new(Mutex::new(Vec::new()));
    thread::scope(|scope| {
        // Every turn is taken, and one of them comes free, so that the calls follow one after the other.
        let mut taken: Vec<_> = (0..MAX_CALLS_PER_PLACE)
            .map(|_| {
                let (release, held) = mpsc::channel::<()>();
                scope.spawn(move || Caller::new().run(place, move || held.recv().is_err()));
                release
            })
            .collect();
        let waits = |number: usize| {
            let calls = calls();
            let count = calls.places.get(&place.name);
            count.is_some_and(|count| count.under_way == MAX_CALLS_PER_PLACE && count.waiting.len() == number)
        };
        let mut waiting = Vec::new();
        for number in 0..20 {
            while !waits(number) {
                thread::yield_now();
            }
            let order = Arc::clone(&order);
            let work = move || order.lock().unwrap().push(number);
            waiting.push(scope.spawn(move || Caller::new().run(place, work)));
        }
        while !waits(20) {
            thread::yield_now();
        }
        taken.pop();
        for call in waiting {
            assert_eq!(call.join().unwrap(), Ok(()));
        }
    });
    assert!(order.lock().unwrap().iter().copied().eq(0..20), "{order:?}");
}

#[test]
fn a_turn_that_comes_late_says_so_and_not_that_it_is_locked() {
    let place = place("late");
    let deadline = Duration::from_millis(400);
    thread::scope(|scope| {
        for _ in 0..MAX_CALLS_PER_PLACE {
            scope.spawn(move || Caller::new().run(place, || thread::sleep(Duration::from_millis(200))));
        }
        while calls().places.get(&place.name).is_none_or(|count| count.under_way < MAX_CALLS_PER_PLACE) {
            thread::yield_now();
        }
        let worker = Caller::new().with_deadline(deadline);
        let outcome = worker.run_with(place, Duration::from_secs(5), |turn| {
            let rest = turn.rest();
            thread::sleep(rest);
            (rest, turn.rest(), turn.too_late())
        });
        let (rest, none, problem) = outcome.unwrap();
        assert!(rest < deadline && none.is_zero(), "{rest:?}");
        let CallError::LateTurn { waited, left } = problem else { panic!("{problem:?}") };
        assert!(waited + left == deadline && waited >= deadline / 10, "{waited:?}");
        let message = problem.to_string();
        assert!(message.contains("waited") && !message.contains("unlock"), "{message}");
    });
}

#[cfg(feature = "openbao")]
#[test]
fn places_of_one_server_share_its_turns_and_no_others() {
    let at = |name: &str| place(name).at_server(&"server", 2);
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    thread::scope(|scope| {
        for name in ["first at it", "second at it"] {
            let (held, place) = (Arc::clone(&held), at(name));
            scope.spawn(move || Caller::new().run(place, move || drop(held.lock().map(|held| held.recv()))));
        }
        while calls().servers.get(&super::super::hash("server", &"server")).is_none_or(|&count| count < 2) {
            thread::yield_now();
        }
        let waited = Duration::from_millis(20);
        let hurried = Caller::new().with_deadline(waited);
        assert_eq!(hurried.run(at("third at it"), || 7), Err(CallError::Queued { waited, under_way: 2 }));
        assert_eq!(hurried.run(place("elsewhere"), || 7), Ok(7));
        drop(release);
    });
    assert_eq!(Caller::new().run(at("third at it"), || 7), Ok(7));
    assert!(
        !calls().servers.contains_key(&super::super::hash("server", &"server")),
        "every call was counted off"
    );
}

#[test]
fn zero_and_endless_deadlines_are_no_panic() {
    let place = place("ends of time");
    for deadline in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let outcome = Caller::new().with_deadline(deadline).run_with(place, Duration::MAX, Turn::rest);
        assert!(outcome.is_ok_and(|rest| rest <= deadline), "{deadline:?}");
    }
}

/// Waits for the outcome of a call that is polled, woken by nothing but its wake.
#[cfg(feature = "rotation")]
fn outcome_of<T: Send + 'static>(
    caller: &Caller,
    place: Target,
    work: impl FnOnce(&Turn) -> T + Send + 'static,
) -> Result<T, CallError> {
    let (wake, woken) = mpsc::channel();
    let mut call = caller.begin(place, work, move || wake.send(()).unwrap());
    loop {
        let now = Instant::now();
        if let Some(outcome) = call.poll(now) {
            assert!(call.poll(now).is_none(), "an outcome is given once");
            return outcome;
        }
        assert!(now < call.until(), "at the deadline there is an outcome");
        let _ = woken.recv_timeout(call.until() - now);
    }
}

#[cfg(feature = "rotation")]
#[test]
fn a_call_that_is_polled_wakes_its_caller_with_the_outcome() {
    let place = place("polled");
    assert_eq!(outcome_of(&Caller::new(), place, |_| 7), Ok(7));
    let panics = outcome_of(&Caller::new(), place, |_| std::panic::resume_unwind(Box::new(())));
    assert_eq!(panics, Err::<(), _>(CallError::Panicked));
    let waited = Duration::from_millis(20);
    let hurried = Caller::new().with_deadline(waited);
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    for _ in 0..MAX_CALLS_PER_PLACE {
        let held = Arc::clone(&held);
        let hangs = outcome_of(&hurried, place, move |_| drop(held.lock().map(|held| held.recv())));
        assert_eq!(hangs, Err(CallError::Deadline { after: waited }));
    }
    let stuck = outcome_of(&Caller::new(), place, |_| 7);
    assert_eq!(stuck, Err(CallError::Stuck { count: MAX_CALLS_PER_PLACE }));
    drop(release);
}

#[cfg(feature = "rotation")]
#[test]
fn a_call_that_is_polled_is_begun_without_blocking() {
    let place = place("begun");
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (wake, woken) = mpsc::channel();
    let begin = |number: usize, held: &Arc<Mutex<mpsc::Receiver<()>>>| {
        let (held, wake) = (Arc::clone(held), wake.clone());
        let work = move |_: &Turn| held.lock().unwrap().recv().map_or(number, |()| number);
        Caller::new().begin(place, work, move || wake.send(number).unwrap())
    };
    let mut calls: Vec<_> = (0..100).map(|number| begin(number, &held)).collect();
    assert!(calls.iter_mut().all(|call| call.poll(Instant::now()).is_none()));
    // One in the queue that is dropped leaves it.
    drop(calls.pop());
    assert_eq!(super::calls().places[&place.name].waiting.len(), 99 - MAX_CALLS_PER_PLACE);
    drop(release);
    for _ in 0..calls.len() {
        let number = woken.recv().unwrap();
        assert_eq!(calls[number].poll(Instant::now()), Some(Ok(number)));
    }
    assert!(!super::calls().places.contains_key(&place.name), "every call was counted off");
}

#[cfg(feature = "rotation")]
#[test]
fn a_polled_call_that_is_dropped_counts_until_it_returns() {
    let place = place("dropped");
    let (release, held) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let work = move |_: &Turn| tell.send(()).is_ok() && held.recv().is_err();
    let call = Caller::new().begin(place, work, || panic!("its caller has gone"));
    told.recv().unwrap();
    drop(call);
    let left_behind = || calls().places.get(&place.name).map(|count| count.left_behind);
    assert_eq!(left_behind(), Some(1));
    drop(release);
    while left_behind().is_some() {
        thread::yield_now();
    }
}

#[cfg(feature = "rotation")]
#[test]
fn a_polled_call_whose_turn_does_not_come_was_queued() {
    let place = place("polled in vain");
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let _calls: Vec<_> = (0..MAX_CALLS_PER_PLACE)
        .map(|_| {
            let held = Arc::clone(&held);
            Caller::new().begin(place, move |_| drop(held.lock().map(|held| held.recv())), || ())
        })
        .collect();
    let waited = Duration::from_millis(20);
    let queued = outcome_of(&Caller::new().with_deadline(waited), place, |_| 7);
    assert_eq!(queued, Err(CallError::Queued { waited, under_way: MAX_CALLS_PER_PLACE }));
    drop(release);
}

#[test]
fn turns_of_many_places_are_given_in_the_order_of_arrival() {
    let at = |name: usize| Target::of("test order", &name).at_server(&"in order", 1);
    let (release, held) = mpsc::channel::<()>();
    let order = Arc::new(Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let waits = |number: usize| {
            let calls = calls();
            let first = calls.places.get(&at(number).name);
            first.is_some_and(|count| count.waiting.len() + count.under_way == 1)
        };
        scope.spawn(move || Caller::new().run(at(0), move || held.recv().is_err()));
        for number in 0..20 {
            while !waits(number) {
                thread::yield_now();
            }
            let order = Arc::clone(&order);
            let work = move || order.lock().unwrap().push(number + 1);
            scope.spawn(move || Caller::new().run(at(number + 1), work));
        }
        while !waits(20) {
            thread::yield_now();
        }
        drop(release);
    });
    assert!(order.lock().unwrap().iter().copied().eq(1..=20), "{order:?}");
}
