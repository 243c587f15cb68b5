//! The events of a keeper, and callbacks that misbehave.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keysheath::handle::Reload;
use keysheath::key::KatanaApp;
use keysheath::oauth::{GrantError, GrantState, KeeperEvent, KeeperSettings, TokenError, TokenKeeper};
use keysheath::store::{Document, DocumentError, DocumentStore, MemoryStore};

use crate::answers::{JSON, exchange, good, granted, refused, refused_once};
use crate::support::Folder;
use crate::support::oidc::{PATIENCE, eventually};
use crate::support::stores::pass_on;
use crate::{quick, quick_cadence};

/// How many events wait for a callback, as its documentation says.
const MAX_WAITING_EVENTS: usize = 64;

/// Settings that hand each event on.
pub(crate) fn reporting() -> (KeeperSettings, Receiver<KeeperEvent>) {
    let (sender, events) = channel();
    (quick().on_event(move |event| sender.send(event.clone()).unwrap()), events)
}

/// The next event, in short.
fn next(events: &Receiver<KeeperEvent>) -> String {
    short(&events.recv_timeout(PATIENCE).expect("an event"))
}

fn short(event: &KeeperEvent) -> String {
    let shown = event.to_string();
    match event {
        KeeperEvent::Refreshed { generation, .. } => {
            assert!(shown.starts_with(&format!("access token {generation} of the grant in ")), "{shown}");
            format!("refreshed {generation}")
        }
        KeeperEvent::Failed { problem, failures, .. } => {
            assert!(shown.contains(&problem.to_string()), "{shown}");
            format!("failed {failures}: {problem}")
        }
        KeeperEvent::Recovered { failures, .. } => format!("recovered {failures}"),
        KeeperEvent::Refused { .. } => {
            assert!(shown.contains("a person must sign in again"), "{shown}");
            "refused".into()
        }
        KeeperEvent::Replaced { .. } => {
            assert!(shown.contains("another sign-in"), "{shown}");
            "replaced".into()
        }
        KeeperEvent::InDoubt { .. } => {
            assert!(shown.contains("may have to sign in again"), "{shown}");
            "in doubt".into()
        }
        other => panic!("{other:?}"),
    }
}

/// Has the token refused again and again until there is an event, and gives that.
fn asked(keeper: &TokenKeeper<KatanaApp>, events: &Receiver<KeeperEvent>) -> String {
    let mut found = None;
    eventually("an event", || {
        // How it ends is for others to test: two attempts may come of it.
        refused(keeper);
        found = events.try_recv().ok();
        found.is_some()
    });
    short(&found.unwrap())
}

/// Those that are left once the keeper has ended.
fn rest(events: &Receiver<KeeperEvent>) -> Vec<String> {
    std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.to_string()).collect()
}

#[test]
fn a_keeper_sends_events_of_tokens_and_failures_in_order() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| match number {
        1 => ("429 Too Many", "{}".into()),
        2 => ("401 No", r#"{"error":"invalid_client"}"#.into()),
        number => (JSON, good(number)),
    });
    let (settings, events) = reporting();
    let keeper = TokenKeeper::start(app, store, settings).unwrap();
    assert_eq!(next(&events), "refreshed 1");
    let first = asked(&keeper, &events);
    assert!(first.starts_with("failed 1: 429"), "{first}");
    // A look at the store in between is no success of the server's.
    std::thread::sleep(Duration::from_millis(600));
    let second = asked(&keeper, &events);
    assert!(second.starts_with("failed 2: 401"), "{second}");
    assert_eq!([asked(&keeper, &events), next(&events)], ["recovered 2", "refreshed 2"]);
    drop(keeper);
    // It may have been refreshed once more.
    assert!(rest(&events).iter().all(|event| event.starts_with("access token 3")));
}

#[test]
fn each_keeper_reports_once_that_a_person_must_sign_in() {
    let folder = Folder::new();
    let refusal = ("400 Bad", r#"{"error":"invalid_grant"}"#.to_owned());
    let (app, store, _server) = granted(&folder, move |_| refusal.clone());
    let ((settings, events), (others, other_events)) = (reporting(), reporting());
    let keeper = TokenKeeper::start(app.clone(), store.clone(), settings).unwrap();
    let other = TokenKeeper::start(app.clone(), store.clone(), others).unwrap();
    assert_eq!([next(&events), next(&other_events)], ["refreshed 1", "refreshed 1"]);
    let failed = format!("failed 1: {}", TokenError::Refused { status: 400 });
    assert_eq!([asked(&keeper, &events), next(&events)], [&*failed, "refused"]);
    assert_eq!(next(&other_events), "refused", "it has read it in the document");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(rest(&events).len() + rest(&other_events).len(), 0);
    // Somebody signs in again.
    exchange(&app).unwrap().save(&store).unwrap();
    assert_eq!([next(&events), next(&events), next(&events)], ["replaced", "refreshed 2", "recovered 1"]);
    assert_eq!([next(&other_events), next(&other_events)], ["replaced", "refreshed 2"]);
    eventually("a good grant", || keeper.status().state() == GrantState::Good);
    drop((keeper, other));
    assert_eq!(rest(&events).len() + rest(&other_events).len(), 0);
}

#[test]
fn doubt_is_reported_once_during_and_after_the_lease() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |_| ("503 Down", "{}".into()));
    let (settings, events) = reporting();
    let settings = settings.with_lease(Duration::from_secs(1));
    let app = app.with_deadline(Duration::from_secs(1));
    let keeper = TokenKeeper::start(app, store, settings).unwrap();
    assert_eq!(next(&events), "refreshed 1");
    // Once, so that it is tried once.
    refused_once(&keeper);
    let failed = next(&events);
    assert!(failed.starts_with("failed 1: 503"), "{failed}");
    assert_eq!(next(&events), "in doubt");
    for _ in 0..20 {
        assert_eq!(keeper.status().state(), GrantState::InDoubt, "{}", keeper.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(keeper);
    assert_eq!(rest(&events), [""; 0]);
}

#[test]
fn a_callback_that_blocks_or_panics_delays_no_refresh() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| (JSON, good(number)));
    let settings = quick().with_cadence(
        quick_cadence().with_minimum_interval(Duration::ZERO).with_longest_back_off(Duration::ZERO),
    );
    let is_blocked = Arc::new(Mutex::new(()));
    let (blocking, reported) = (Arc::clone(&is_blocked), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&reported);
    let settings = settings.on_event(move |_| {
        drop(blocking.lock());
        assert_ne!(count.fetch_add(1, Ordering::SeqCst), 0, "the first one panics");
    });
    let block = is_blocked.lock().unwrap();
    let keeper = TokenKeeper::start(app, store, settings).unwrap();
    // One is being delivered, and so many wait. Each token is an event.
    let kept = 1 + MAX_WAITING_EVENTS as u64;
    let tokens = || keeper.handle().load().unwrap().generation().to_string().parse::<u64>().unwrap();
    eventually("more tokens than that", || {
        refused(&keeper);
        tokens() > kept + 3
    });
    eventually("the count", || keeper.status().health().dropped_events() == tokens() - kept);
    let status = keeper.status();
    assert!(status.to_string().contains("events dropped because"), "{status}");
    drop(block);
    drop(keeper);
    assert_eq!(
        reported.load(Ordering::SeqCst),
        1 + MAX_WAITING_EVENTS,
        "the last ones are reported before it has ended"
    );
}

#[test]
fn dropping_a_keeper_waits_for_its_last_event() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| (JSON, good(number)));
    let reported = Arc::new(AtomicBool::new(false));
    let is_reported = Arc::clone(&reported);
    let settings = quick().on_event(move |_| {
        std::thread::sleep(Duration::from_millis(500));
        is_reported.store(true, Ordering::SeqCst);
    });
    drop(TokenKeeper::start(app, store, settings).unwrap());
    assert!(reported.load(Ordering::SeqCst));
}

#[test]
fn a_keeper_may_be_dropped_by_its_own_callback() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| (JSON, good(number)));
    let slot = Arc::new(Mutex::new(None::<TokenKeeper<KatanaApp>>));
    let (own, dropped) = (Arc::clone(&slot), Arc::new(AtomicBool::new(false)));
    let is_dropped = Arc::clone(&dropped);
    let settings = quick().on_event(move |event| {
        if matches!(event, KeeperEvent::Refreshed { generation, .. } if generation.to_string() == "2") {
            drop(own.lock().unwrap().take());
            is_dropped.store(true, Ordering::SeqCst);
        }
    });
    let keeper = TokenKeeper::start(app, store, settings).unwrap();
    let handle = keeper.handle();
    *slot.lock().unwrap() = Some(keeper);
    handle.report_refused(handle.load().unwrap().generation());
    eventually("the drop", || dropped.load(Ordering::SeqCst));
    eventually("the end", || {
        let now = handle.load().unwrap().generation();
        handle.wait_newer_than(now, PATIENCE) == Some(Reload::NoRefresher)
    });
}

/// A store that panics on demand.
#[derive(Clone, Default)]
struct Panicking {
    store: MemoryStore,
    panics: Arc<AtomicBool>,
}

impl DocumentStore for Panicking {
    pass_on!(store: provenance, limit, write);

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        self.store.read()
    }
}

#[test]
fn a_panic_of_a_keeper_is_reported_and_leaves_no_caller_waiting() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| (JSON, good(number)));
    let store = Panicking { store, panics: Arc::default() };
    let (settings, events) = reporting();
    let keeper = TokenKeeper::start(app, store.clone(), settings).unwrap();
    assert_eq!(next(&events), "refreshed 1");
    store.panics.store(true, Ordering::SeqCst);
    assert_eq!(next(&events), format!("failed 1: {}", GrantError::Ended));
    let status = keeper.status();
    assert_eq!(
        (status.health().problem(), status.health().consecutive_failures()),
        (Some(&GrantError::Ended), 1),
        "{status}"
    );
    assert_eq!(refused(&keeper), Some(Reload::NoRefresher));
}
