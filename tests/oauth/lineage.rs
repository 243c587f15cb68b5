//! Which grant it is: copies that are put back, and other accounts' grants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keysheath::handle::Reload;
use keysheath::key::Profile;
use keysheath::oauth::{GrantError, GrantState, KeeperEvent, TokenKeeper};
use keysheath::source::{Provenance, Reading, Source, SourceError};
use keysheath::store::{Document, DocumentContent, DocumentError, DocumentStore, MemoryStore, Version};

use crate::answers::{JSON, exchange, good, granted, refused, refused_once};
use crate::events::reporting;
use crate::support::Folder;
use crate::support::oidc::{CLIENT_SECRET, Oidc, PATIENCE, app_of, eventually};
use crate::support::stores::pass_on;
use crate::{products, quick, quick_cadence};

fn put(store: &MemoryStore, content: &DocumentContent) {
    let version = *store.read().unwrap().unwrap().version();
    store.write(content, Some(&version)).unwrap();
}

#[test]
fn an_older_copy_is_written_over_before_it_ends_the_grant() {
    let (oidc, store) = (Oidc::start(""), MemoryStore::new());
    oidc.grant_in(&store);
    let copy = store.read().unwrap().unwrap().content().clone();
    let (settings, events) = reporting();
    let keeper = TokenKeeper::start(oidc.app(), store.clone(), settings).unwrap();
    assert_eq!(refused(&keeper), Some(Reload::Newer));
    put(&store, &copy);
    let next = || events.recv_timeout(PATIENCE).expect("an event");
    let event = std::iter::repeat_with(next).find(|event| !matches!(event, KeeperEvent::Refreshed { .. }));
    assert!(matches!(event, Some(KeeperEvent::WrittenBack { .. })), "{event:?}");
    // A process that starts now has the newest, and can refresh it.
    let second = TokenKeeper::start(oidc.app(), store, quick()).unwrap();
    assert_eq!(second.handle().load().unwrap().generation().to_string(), "2");
    assert_eq!(refused(&second), Some(Reload::Newer));
    assert_eq!(products(&second.handle(), &oidc.origin()).0, 200);
    assert_eq!((oidc.count("refused"), oidc.count("revoked")), (0, 0));
    eventually("the first keeper", || keeper.handle().load().unwrap().generation().to_string() == "3");
    assert_eq!((keeper.status().state(), keeper.status().health().problem()), (GrantState::Good, None));
}

#[test]
fn grants_of_two_accounts_of_one_app_are_told_apart() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| (JSON, good(number)));
    let other = MemoryStore::new();
    // The other account's is the newer one by far.
    for _ in 0..3 {
        exchange(&app).unwrap().save(&other).unwrap();
    }
    let keeper = TokenKeeper::start(app.clone(), store.clone(), quick()).unwrap();
    let handle = keeper.handle();
    let own = store.read().unwrap().unwrap().content().clone();
    put(&store, other.read().unwrap().unwrap().content());
    eventually("the other grant", || keeper.status().health().problem() == Some(&GrantError::OtherGrant));
    assert_eq!(handle.load().unwrap().generation().to_string(), "1", "nothing was changed");
    assert_eq!(refused(&keeper), Some(Reload::Failed));
    put(&store, &own);
    eventually("its own grant", || keeper.status().health().problem().is_none());
    // In its own place, a person signs in again: that is accepted and reported.
    let (settings, events) = reporting();
    let second = TokenKeeper::start(app.clone(), store.clone(), settings).unwrap();
    exchange(&app).unwrap().save(&store).unwrap();
    eventually("the next sign-in", || second.handle().load().unwrap().generation().to_string() == "2");
    let reported: Vec<_> = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(1)).ok()).collect();
    assert!(matches!(reported[1], KeeperEvent::Replaced { .. }), "{reported:?}");
    assert!(matches!(reported[2], KeeperEvent::Refreshed { .. }), "{reported:?}");
    // The earlier sign-in, put back: its refresh token may be good, and only a person knows which one is
    // meant.
    put(&store, &own);
    eventually("the problem", || second.status().health().problem() == Some(&GrantError::WentBack));
    assert_eq!(second.handle().load().unwrap().generation().to_string(), "2");
}

/// A store in which others always write first, and that counts.
#[derive(Clone, Default)]
struct Contended {
    store: MemoryStore,
    writes: Arc<AtomicU32>,
    reads: Arc<AtomicU32>,
}

impl DocumentStore for Contended {
    pass_on!(store: provenance, limit);

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.read()
    }

    fn write(&self, _: &DocumentContent, _: Option<&Version>) -> Result<Version, DocumentError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Err(DocumentError::Conflict)
    }
}

/// A client secret that counts how often it is loaded.
#[derive(Default)]
pub(crate) struct Counted(Arc<AtomicU32>);

impl Source for Counted {
    fn provenance(&self) -> Provenance {
        Provenance::other("test", "counted")
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Reading::present(CLIENT_SECRET.to_owned()))
    }
}

#[test]
fn a_lease_that_conflicts_is_tried_with_pauses_and_one_secret() {
    let folder = Folder::new();
    let (_, granted, server) = granted(&folder, |number| (JSON, good(number)));
    let store = Contended { store: granted, ..Contended::default() };
    let loads = Arc::new(AtomicU32::new(0));
    let app = app_of(Counted(Arc::clone(&loads)), &format!("http://{}", server.address));
    let settings = quick().with_cadence(quick_cadence().with_interval(Duration::from_secs(3600)));
    let keeper = TokenKeeper::start(app, store.clone(), settings).unwrap();
    let start = Instant::now();
    refused_once(&keeper);
    eventually("the failure", || {
        keeper.status().health().problem().is_some() || start.elapsed() > Duration::from_secs(8)
    });
    let counts = [&store.writes, &store.reads, &loads].map(|count| count.load(Ordering::SeqCst));
    assert!(counts[0] < 20 && counts[1] < 20, "writes, reads, loads: {counts:?}");
    assert_eq!(counts[2], 1, "the client secret is loaded once for an attempt");
    assert!(keeper.status().health().problem().is_some(), "it says that the store does not take the lease");
}
