//! A process that is killed in the middle of a refresh, and what the next one makes of it.

use std::time::Duration;

use keysheath::oauth::{GrantState, TokenKeeper};
use keysheath::store::{DocumentContent, DocumentError, DocumentStore, FileStore, Version};

use crate::support::oidc::{Oidc, eventually};
use crate::support::stores::pass_on;
use crate::support::{Child, Folder};
use crate::{child, own, products, quick};

/// Kills its process at one moment: before or after one of its writes, which are numbered from 1.
struct Killing {
    store: FileStore,
    writes: std::sync::atomic::AtomicU32,
    at: String,
}

impl Killing {
    fn die_at(&self, when: &str, write: u32) {
        if self.at == format!("{when} {write}") {
            std::process::abort();
        }
    }
}

impl DocumentStore for Killing {
    pass_on!(store: provenance, limit, read);

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        let write = 1 + self.writes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.die_at("before", write);
        let written = self.store.write(content, unchanged);
        self.die_at("after", write);
        written
    }
}

/// Runs the child until it is killed, and gives the server and the folder with the grant that it has left.
fn killed(test: &'static str, at: &str, ttl: &str) -> (Oidc, Folder) {
    if Child::new(test).is_here() {
        let (app, store) = own();
        let store = Killing { store, writes: 0.into(), at: at.to_owned() };
        // As soon as it can be: a twentieth of the lifetime.
        let settings =
            quick().with_refresh_ahead(90).with_refresh_jitter(90).with_lease(Duration::from_secs(2));
        let app = app.with_deadline(Duration::from_secs(2));
        let keeper = TokenKeeper::start(app, store, settings).unwrap();
        let now = keeper.handle().load().unwrap().generation();
        keeper.handle().report_refused(now);
        std::thread::sleep(Duration::from_secs(60));
        panic!("it was to be killed: {}", keeper.status());
    }
    let (oidc, folder) = (Oidc::start(ttl), Folder::new());
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    let status = child(test, oidc.port, &folder).spawn().wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "{status}");
    (oidc, folder)
}

#[test]
fn killed_before_persisting_the_token_lasts_then_a_person_acts() {
    const TEST: &str = "killed::killed_before_persisting_the_token_lasts_then_a_person_acts";
    let (oidc, folder) = killed(TEST, "before 2", "\"accessTtl\": 30");
    assert_eq!(oidc.count("refreshed"), 1, "the server has used the refresh token up");
    // A keeper for whom a refresh is due from the start.
    let settings = quick().with_refresh_ahead(90).with_refresh_jitter(90);
    let keeper = TokenKeeper::start(oidc.app(), FileStore::new(folder.at("grant")), settings).unwrap();
    eventually("doubt", || keeper.status().state() == GrantState::InDoubt);
    // Nothing is tried that would cost the active token.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 200);
        assert_eq!(oidc.count("refused"), 0);
    }
    eventually("the end", || keeper.status().state() == GrantState::Refused);
    assert_eq!(oidc.count("refused"), 1);
    // A person signs in, and it goes on.
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    eventually("the new grant", || keeper.status().state() == GrantState::Good);
    eventually("its token", || keeper.handle().load().unwrap().generation().to_string() == "2");
    assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 200);
}

#[test]
fn killed_before_the_request_the_grant_recovers_at_the_end() {
    const TEST: &str = "killed::killed_before_the_request_the_grant_recovers_at_the_end";
    let (oidc, folder) = killed(TEST, "after 1", "\"accessTtl\": 15");
    assert_eq!(oidc.count("refreshed"), 0);
    let keeper = TokenKeeper::start(oidc.app(), FileStore::new(folder.at("grant")), quick()).unwrap();
    let first = keeper.handle().load().unwrap().generation();
    eventually("doubt", || keeper.status().state() == GrantState::InDoubt);
    eventually("the next token", || keeper.handle().load().unwrap().generation() > first);
    assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 200);
    assert_eq!((keeper.status().state(), oidc.count("refused")), (GrantState::Good, 0));
}

#[test]
fn in_doubt_a_refused_token_is_refreshed_at_once() {
    const TEST: &str = "killed::in_doubt_a_refused_token_is_refreshed_at_once";
    let (oidc, folder) = killed(TEST, "after 1", "");
    let keeper = TokenKeeper::start(oidc.app(), FileStore::new(folder.at("grant")), quick()).unwrap();
    oidc.forget(keeper.handle().load().unwrap().current().expose_secret());
    let (status, sent) = products(&keeper.handle(), &oidc.origin());
    assert_eq!((status, sent.is_repeated()), (200, true));
}

#[test]
fn killed_after_persisting_the_next_process_publishes_them() {
    const TEST: &str = "killed::killed_after_persisting_the_next_process_publishes_them";
    let (oidc, folder) = killed(TEST, "after 2", "");
    assert_eq!(oidc.count("refreshed"), 1);
    let keeper = TokenKeeper::start(oidc.app(), FileStore::new(folder.at("grant")), quick()).unwrap();
    assert_eq!(keeper.handle().load().unwrap().generation().to_string(), "2");
    assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 200);
    assert_eq!((keeper.status().state(), oidc.count("refreshed")), (GrantState::Good, 1));
}
