//! Keeping a token fresh at a real server.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use keysheath::handle::Reload;
use keysheath::oauth::{GrantError, GrantState, TokenError, TokenKeeper};
use keysheath::store::{Document, DocumentError, DocumentStore, MemoryStore};

use crate::answers::refused;
use crate::support::oidc::{Oidc, PATIENCE, eventually};
use crate::support::stores::pass_on;
use crate::{products, quick, quick_cadence};

#[test]
fn a_token_is_refreshed_ahead_of_its_end_and_none_is_sent_late() {
    let oidc = Oidc::start("\"accessTtl\": 3");
    let store = MemoryStore::new();
    oidc.grant_in(&store);
    let keeper = TokenKeeper::start(oidc.app(), store, quick().with_refresh_ahead(50)).unwrap();
    let handle = keeper.handle();
    let start = Instant::now();
    while oidc.count("refreshed") < 4 {
        assert!(start.elapsed() < PATIENCE, "{}", keeper.status());
        assert_eq!(products(&handle, &oidc.origin()).0, 200);
    }
    let refreshed = start.elapsed();
    assert!(refreshed > Duration::from_secs(3), "not more often than is due: {refreshed:?}");
    assert_eq!(keeper.status().state(), GrantState::Good);
    assert_eq!(oidc.count("revoked"), 0);
}

#[test]
fn a_token_refused_early_is_refreshed_once_for_all_callers() {
    let oidc = Oidc::start("");
    let store = MemoryStore::new();
    oidc.grant_in(&store);
    let keeper = TokenKeeper::start(oidc.app(), store, quick()).unwrap();
    let handle = keeper.handle();
    let first = handle.load().unwrap();
    oidc.forget(first.current().expose_secret());
    let sent: Vec<_> = std::thread::scope(|scope| {
        let ask = || products(&handle, &oidc.origin());
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    for (status, sent) in sent {
        assert_eq!(status, 200);
        assert!(sent.generation() > first.generation());
    }
    assert_eq!(oidc.count("refreshed"), 1);
    // What is asked for without a refusal is a look at the store, and nothing more.
    let now = handle.load().unwrap().generation();
    assert_eq!(handle.wait_newer_than(now, PATIENCE), Some(Reload::Unchanged));
    assert_eq!(oidc.count("refreshed"), 1);
}

#[test]
fn an_api_that_refuses_every_token_causes_no_refresh_storm() {
    let oidc = Oidc::start("");
    let store = MemoryStore::new();
    oidc.grant_in(&store);
    let settings = quick().with_cadence(
        quick_cadence()
            .with_minimum_interval(Duration::from_secs(2))
            .with_longest_back_off(Duration::from_secs(600)),
    );
    let keeper = TokenKeeper::start(oidc.app(), store, settings).unwrap();
    let handle = keeper.handle();
    let start = Instant::now();
    let mut too_soon = 0;
    for _ in 0..20 {
        let now = handle.load().unwrap().generation();
        handle.report_refused(now);
        too_soon += u32::from(handle.wait_newer_than(now, PATIENCE) == Some(Reload::TooSoon));
    }
    let most = 1 + start.elapsed().as_secs() / 2;
    assert!(oidc.count("refreshed") <= most, "{} in {:?}", oidc.count("refreshed"), start.elapsed());
    assert!(too_soon > 0);
}

#[test]
fn a_revoked_grant_is_told_from_a_server_that_is_down() {
    let mut oidc = Oidc::start("");
    let (store, other) = (MemoryStore::new(), MemoryStore::new());
    oidc.grant_in(&store);
    oidc.grant_in(&other);
    let keeper = TokenKeeper::start(oidc.app(), store.clone(), quick()).unwrap();
    oidc.revoke(keeper.handle().load().unwrap().current().expose_secret());
    assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 401);
    let status = keeper.status();
    assert_eq!(status.state(), GrantState::Refused);
    assert!(
        matches!(status.health().problem(), Some(GrantError::Token(TokenError::Refused { status: 400 }))),
        "{status}"
    );
    // A later caller knows it from the document, and asks the server no more.
    let refused = oidc.count("refused");
    let second = TokenKeeper::start(oidc.app(), store, quick()).unwrap();
    eventually("a look at the document", || second.status().state() == GrantState::Refused);
    assert_eq!(products(&second.handle(), &oidc.origin()).0, 401);
    assert_eq!(oidc.count("refused"), refused);

    let keeper = TokenKeeper::start(oidc.app(), other, quick()).unwrap();
    let handle = keeper.handle();
    let before = handle.load().unwrap().generation();
    oidc.stop();
    handle.report_refused(before);
    assert_eq!(handle.wait_newer_than(before, PATIENCE), Some(Reload::Failed));
    let status = keeper.status();
    assert_eq!(status.state(), GrantState::Good, "nothing was sent, so nothing is in doubt");
    assert!(
        matches!(status.health().problem(), Some(GrantError::Token(TokenError::Unreachable(_)))),
        "{status}"
    );
    assert_eq!(handle.load().unwrap().generation(), before, "the token stays active");
}

/// A store whose reads wait while the gate is held.
#[derive(Clone, Default)]
struct Gated {
    store: MemoryStore,
    gate: Arc<Mutex<()>>,
    reads: Arc<AtomicU32>,
}

impl DocumentStore for Gated {
    pass_on!(store: provenance, limit, write);

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let _open = self.gate.lock().unwrap();
        self.store.read()
    }
}

#[test]
fn two_who_refresh_one_token_lose_the_grant() {
    // What the lease is there against: two stores with a copy of one grant each.
    let oidc = Oidc::start("");
    let (store, copy) = (MemoryStore::new(), Gated::default());
    oidc.grant_in(&store);
    copy.write(store.read().unwrap().unwrap().content(), None).unwrap();
    let winner = TokenKeeper::start(oidc.app(), store, quick()).unwrap();
    let loser = TokenKeeper::start(oidc.app(), copy.clone(), quick()).unwrap();
    assert_eq!(refused(&winner), Some(Reload::Newer));
    assert_eq!(products(&winner.handle(), &oidc.origin()).0, 200);
    // While a poll of the loser waits for its store, a caller asks and the refusal is reported: the next
    // attempt answers both.
    let held = copy.gate.lock().unwrap();
    let before = copy.reads.load(Ordering::SeqCst);
    eventually("a poll", || copy.reads.load(Ordering::SeqCst) > before);
    let now = loser.handle().load().unwrap().generation();
    let mut asked = loser.handle().newer_than(now);
    assert!(Pin::new(&mut asked).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    loser.handle().report_refused(now);
    drop(held);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(asked), Reload::Failed);
    assert_eq!(loser.status().state(), GrantState::Refused);
    assert_eq!(products(&winner.handle(), &oidc.origin()).0, 401, "the winner's token as well");
    assert_eq!(winner.status().state(), GrantState::Refused);
}
