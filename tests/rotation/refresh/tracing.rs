//! Subscribers of `tracing` that block or panic: none of it reaches a refresher, a step, a presence or a
//! drop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::steps::Now as _;
use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::Refresher;
use keysheath::rotation::{Presence, PresenceSettings, Rotation, RotationPolicy};
use keysheath::source::SecretFile;
use keysheath::store::MemoryStore;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::refreshing::{
    Gate, PATIENCE, SECOND, Scripted, THIRD, eventually, has, of, only_asked, parsed, quick,
};
use crate::support::waiting::in_time;
use crate::support::{Folder, KEY, in_child};

/// Does this with each event.
struct Does<F>(F);

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Subscriber for Does<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("keysheath")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.0(event);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn globally(event: impl Fn(&Event<'_>) + Send + Sync + 'static) {
    tracing::subscriber::set_global_default(Does(event)).unwrap();
}

/// Panics, with something that panics when it is dropped.
fn panic_twice() {
    struct Twice;
    impl Drop for Twice {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }
    std::panic::panic_any(Twice);
}

#[test]
fn a_subscriber_that_blocks_stops_no_refresher() {
    in_child::<&str>("tracing::a_subscriber_that_blocks_stops_no_refresher", &[], || {
        let gate = Gate::default();
        let shut = gate.clone();
        globally(move |_| shut.pass());
        let source = Scripted::new(KEY);
        let refresher = of(&source, quick());
        eventually("it polls", || source.calls() > 10);
        let handle = refresher.handle();
        source.gives(SECOND);
        eventually("it takes a new key", || has(&handle, SECOND));
        let asked = of(&source, only_asked());
        let handle = asked.handle();
        let answer = in_time(Duration::from_secs(3), move || {
            handle.wait_newer_than(handle.load().unwrap().generation(), PATIENCE)
        });
        assert_eq!(answer, Some(Reload::Unchanged));
        let start = Instant::now();
        in_time(Duration::from_secs(3), move || drop((refresher, asked)));
        assert!(start.elapsed() < Duration::from_secs(3), "no line is waited for longer than a second");
        gate.open();
    });
}

#[test]
fn a_subscriber_that_blocks_delays_steps_by_a_second_at_most() {
    in_child::<&str>("tracing::a_subscriber_that_blocks_delays_steps_by_a_second_at_most", &[], || {
        let gate = Gate::default();
        let shut = gate.clone();
        globally(move |_| shut.pass());
        let start = Instant::now();
        in_time(Duration::from_secs(20), || {
            let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new()).unwrap();
            let handle = rotation.handle();
            rotation.adopt(&parsed(KEY)).unwrap();
            for key in [SECOND, THIRD] {
                rotation.stage(&parsed(key)).unwrap();
                rotation.abort_now().unwrap();
            }
            assert!(has(&handle, KEY));
            let settings = PresenceSettings::new("a service");
            drop(Presence::show(MemoryStore::new(), &handle, settings).unwrap());
        });
        assert!(start.elapsed() < Duration::from_secs(4), "five steps and a drop: {:?}", start.elapsed());
        gate.open();
    });
}

#[test]
fn a_subscriber_that_panics_ends_nothing_while_unwinding_either() {
    in_child::<&str>("tracing::a_subscriber_that_panics_ends_nothing_while_unwinding_either", &[], || {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        globally(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            panic_twice();
        });
        let folder = Folder::new();
        folder.write("key", KEY);
        let chain = Chain::<Kanal>::new().with(SecretFile::new(folder.at("key")));
        let refresher = Refresher::from_chain(chain, quick()).unwrap();
        let handle = refresher.handle();
        for key in [SECOND, THIRD] {
            folder.write("key", key);
            eventually("it goes on", || has(&handle, key));
        }
        let unwound = catch_unwind(AssertUnwindSafe(move || {
            let _refresher = refresher;
            panic!("the program fails");
        }));
        assert!(unwound.is_err());
        // A source that panics ends its refresher, which tells of that while it unwinds.
        let source = Scripted::new(KEY);
        let refresher = of(&source, quick());
        source.does(|_| panic!("a source fails"));
        eventually("its panic is noted", || refresher.status().health().problem().is_some());
        drop(refresher);
        let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new());
        rotation.unwrap().adopt(&parsed(KEY)).unwrap();
        assert!(calls.load(Ordering::SeqCst) >= 6, "each line was given: {calls:?}");
    });
}

#[test]
fn lines_go_to_the_subscriber_of_the_thread_that_started_it() {
    let targets = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&targets);
    let keep = move |event: &Event<'_>| kept.lock().unwrap().push(event.metadata().target().to_owned());
    let source = Scripted::new(KEY);
    tracing::subscriber::with_default(Does(keep), || {
        let refresher = of(&source, only_asked());
        source.gives(SECOND);
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
        drop(refresher);
    });
    assert_eq!(*targets.lock().unwrap(), ["keysheath::refresh::report"; 2]);
}

#[test]
fn lines_that_a_blocked_subscriber_loses_are_counted_and_said() {
    in_child::<&str>("tracing::lines_that_a_blocked_subscriber_loses_are_counted_and_said", &[], || {
        let (gate, lost) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let (shut, counted) = (gate.clone(), Arc::clone(&lost));
        globally(move |event| {
            shut.pass();
            counted
                .fetch_add(usize::from(event.fields().any(|field| field.name() == "lost")), Ordering::SeqCst);
        });
        let source = Scripted::new(KEY);
        source.does(|calls| Ok(crate::support::refreshing::text(if calls % 2 == 0 { KEY } else { SECOND })));
        let refresher = of(&source, only_asked());
        for _ in 0..1100 {
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
        }
        eventually("lines are lost", || refresher.status().health().dropped_events() > 0);
        gate.open();
        eventually("it is said", || lost.load(Ordering::SeqCst) > 0);
    });
}

#[test]
fn loading_a_chain_and_a_refresher_tell_tracing_of_remarks() {
    struct Text(String);
    impl tracing::field::Visit for Text {
        fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0 = format!("{value:?}");
        }
    }

    let targets = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&targets);
    let keep = move |event: &Event<'_>| {
        let mut text = Text(String::new());
        event.record(&mut text);
        kept.lock().unwrap().push((*event.metadata().level(), text.0));
    };
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    crate::support::set_mode(&path, 0o644);
    let chain = || Chain::<Kanal>::new().with(SecretFile::new(&path));
    tracing::subscriber::with_default(Does(keep), || {
        chain().load().unwrap();
        drop(Refresher::from_chain(chain(), only_asked()).unwrap());
    });
    let targets = targets.lock().unwrap();
    let is_it = |(level, text): &&(tracing::Level, String)| {
        *level == tracing::Level::WARN && text.contains("every user of this machine can read it (mode 644)")
    };
    assert_eq!(targets.iter().filter(is_it).count(), 2, "{targets:?}");
}
