//! Stores that do not write, clocks that differ, holders that are too slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use keysheath::FileProblem;
use keysheath::handle::Reload;
use keysheath::oauth::{GrantError, GrantState, TokenKeeper};
use keysheath::store::{Document, DocumentContent, DocumentError, DocumentStore, MemoryStore, Version};

use crate::answers::{JSON, app, exchange, good, refused, refused_once};
use crate::quick;
use crate::support::Folder;
use crate::support::oidc::{PATIENCE, eventually};
use crate::support::recorder::{Recorder, write_answer};
use crate::support::stores::pass_on;

/// A store that fails on demand.
#[derive(Clone, Default)]
pub(crate) struct Failing {
    pub(crate) store: MemoryStore,
    /// How many of the next writes fail, once so many have not.
    pub(crate) fail: Arc<AtomicU32>,
    pub(crate) after: Arc<AtomicU32>,
    /// Whether what fails was written all the same.
    pub(crate) writes: bool,
}

impl DocumentStore for Failing {
    pass_on!(store: provenance, limit, read);

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        let less = |count: u32| count.checked_sub(1);
        if self.after.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err()
            && self.fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
        {
            if self.writes {
                self.store.write(content, unchanged)?;
            }
            return Err(DocumentError::File(FileProblem::Unwritable(std::io::ErrorKind::Other)));
        }
        self.store.write(content, unchanged)
    }
}

/// A server that gives one token after the other, after doing something.
fn server(before: impl Fn(u32) + Send + Sync + 'static) -> Recorder {
    let number = AtomicU32::new(0);
    Recorder::raw(move |_, stream| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        before(number);
        write_answer(stream, JSON, &good(number))
    })
}

#[test]
fn tokens_are_published_once_they_are_persisted_and_not_before() {
    for writes in [false, true] {
        let (folder, server) = (Folder::new(), server(|_| ()));
        let store = Failing { writes, ..Failing::default() };
        let app = app(server.address, &folder);
        exchange(&app).unwrap().save(&store).unwrap();
        let keeper = TokenKeeper::start(app, store.clone(), quick()).unwrap();
        // The lease is written; then the disk is full, for a few tries.
        store.fail.store(4, Ordering::SeqCst);
        store.after.store(1, Ordering::SeqCst);
        assert_eq!(refused(&keeper), Some(Reload::Newer));
        assert_eq!(server.requests().len(), 2, "one refresh, whose tokens were kept until they were written");
        let document = store.read().unwrap().unwrap();
        let text = String::from_utf8(document.content().expose_secret().to_vec()).unwrap();
        assert!(text.contains("\"number\": 2") && text.contains("\"lease\": null"), "{text}");
        assert_eq!(keeper.status().health().problem(), None);
    }
}

#[test]
fn while_tokens_are_not_persisted_the_old_one_stays_active() {
    let (folder, server) = (Folder::new(), server(|_| ()));
    let store = Failing::default();
    let app = app(server.address, &folder);
    exchange(&app).unwrap().save(&store).unwrap();
    let keeper = TokenKeeper::start(app, store.clone(), quick()).unwrap();
    let handle = keeper.handle();
    let first = handle.load().unwrap().generation();
    store.fail.store(u32::MAX, Ordering::SeqCst);
    store.after.store(1, Ordering::SeqCst);
    handle.report_refused(first);
    eventually("the refresh", || server.requests().len() == 2);
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(handle.wait_newer_than(first, PATIENCE), Some(Reload::Failed));
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "no caller waits for the disk: {:?}",
            start.elapsed()
        );
    }
    assert_eq!(handle.load().unwrap().generation(), first);
    assert!(matches!(keeper.status().health().problem(), Some(GrantError::NotPersisted(_))));
    // The lease is over meanwhile, and the tokens are kept all the same.
    store.fail.store(0, Ordering::SeqCst);
    eventually("the tokens", || handle.load().unwrap().generation() > first);
    assert_eq!(server.requests().len(), 2, "one refresh");
    assert_eq!(keeper.status().health().problem(), None);
}

#[test]
fn tokens_that_do_not_fit_ask_for_a_place_that_holds_more() {
    let too_large = DocumentError::TooLarge { limit: 2504 };
    for error in [GrantError::from(too_large.clone()), GrantError::NotPersisted(too_large)] {
        let text = error.to_string();
        assert!(text.contains("2504 bytes") && text.contains("use a place that holds more"), "{text}");
        assert!(!text.contains("shorten"), "no one can shorten a token: {text}");
    }
}

#[test]
fn a_late_holder_writes_over_a_lease_but_over_no_tokens() {
    // While the server thinks, the document changes: another holder is at it, and has refreshed or not.
    for has_refreshed in [false, true] {
        let folder = Folder::new();
        let store = MemoryStore::new();
        let other = store.clone();
        let server = server(move |number| {
            if number == 1 {
                change(&other, |text| {
                    let text = with_number(text, "holder", 7);
                    if !has_refreshed {
                        return text;
                    }
                    let text = with_number(&with_number(&text, "number", 2), "serial", 2);
                    text.replacen("\"access\": \"", "\"access\": \"QUFB", 1)
                });
            }
        });
        let app = app(server.address, &folder);
        exchange(&app).unwrap().save(&store).unwrap();
        let keeper = TokenKeeper::start(app, store.clone(), quick()).unwrap();
        refused_once(&keeper);
        eventually("the second token", || keeper.handle().load().unwrap().generation().to_string() == "2");
        let text = String::from_utf8(store.read().unwrap().unwrap().content().expose_secret().to_vec());
        // The server has used up what the other has the lease for, so what it has given is all there is.
        assert_eq!(text.as_ref().unwrap().contains("\"holder\""), has_refreshed, "{text:?}");
        assert_eq!(text.unwrap().contains("\"access\": \"QUFB"), has_refreshed);
    }
}

/// The text of a grant, changed.
fn change(store: &MemoryStore, change: impl Fn(&str) -> String) {
    let there = store.read().unwrap().unwrap();
    let text = change(std::str::from_utf8(there.content().expose_secret()).unwrap());
    store.write(&DocumentContent::from(text.into_bytes()), Some(there.version())).unwrap();
}

fn with_number(text: &str, name: &str, value: u64) -> String {
    let (start, rest) = text.split_once(&format!("\"{name}\": ")).unwrap();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
    format!("{start}\"{name}\": {value}{}", &rest[end..])
}

#[test]
fn clocks_that_differ_cost_one_refresh_at_most() {
    for expires in [0, 1, u64::MAX >> 2] {
        let (folder, server, store) = (Folder::new(), server(|_| ()), MemoryStore::new());
        let app = app(server.address, &folder);
        exchange(&app).unwrap().save(&store).unwrap();
        let shared = store.clone();
        let keeper = TokenKeeper::start(app, store, quick()).unwrap();
        // A machine whose clock is years off writes the next token, and this one sees it come.
        change(&shared, |text| {
            let text = with_number(&with_number(text, "expires", expires), "number", 2);
            let text = with_number(&text, "serial", 2);
            text.replacen("\"access\": \"", "\"access\": \"QUFB", 1)
        });
        eventually("the next token", || keeper.handle().load().unwrap().generation().to_string() == "2");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(server.requests().len(), 1, "it is fresh, whatever the clock says: {}", keeper.status());
    }
    // One that starts cannot know, and refreshes a token that its own clock says is over: once.
    let (folder, server, store) = (Folder::new(), server(|_| ()), MemoryStore::new());
    let app = app(server.address, &folder);
    exchange(&app).unwrap().save(&store).unwrap();
    change(&store, |text| with_number(text, "expires", 1));
    let keeper = TokenKeeper::start(app, store, quick()).unwrap();
    eventually("a refresh", || keeper.handle().load().unwrap().generation().to_string() == "2");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_document_that_is_no_grant_changes_no_active_token() {
    let (folder, server, store) = (Folder::new(), server(|_| ()), MemoryStore::new());
    let app = app(server.address, &folder);
    exchange(&app).unwrap().save(&store).unwrap();
    let keeper = TokenKeeper::start(app.clone(), store.clone(), quick()).unwrap();
    assert_eq!(refused(&keeper), Some(Reload::Newer));
    let now = keeper.handle().load().unwrap().generation();
    let write = |content: &DocumentContent| {
        let version = *store.read().unwrap().unwrap().version();
        store.write(content, Some(&version)).unwrap();
    };
    let garbage = DocumentContent::from(b"{\"keysheath\": \"grant\", \"form\": 1}".to_vec());
    write(&garbage);
    eventually("the problem", || keeper.status().to_string().contains("is not a grant"));
    assert_eq!(keeper.handle().load().unwrap().generation(), now);
    assert_eq!(server.requests().len(), 2, "and nothing is sent");
    let error = TokenKeeper::start(app.clone(), store.clone(), quick()).unwrap_err();
    assert!(matches!(error, GrantError::Corrupt { .. }), "{error}");
}

#[test]
fn dropping_a_keeper_finishes_its_refresh_and_keeps_the_token() {
    let folder = Folder::new();
    let server = server(|number| std::thread::sleep(Duration::from_millis(u64::from(number) * 700)));
    let (app, store) = (app(server.address, &folder), MemoryStore::new());
    exchange(&app).unwrap().save(&store).unwrap();
    let keeper = TokenKeeper::start(app.clone(), store.clone(), quick()).unwrap();
    let handle = keeper.handle();
    let now = handle.load().unwrap().generation();
    handle.report_refused(now);
    eventually("the refresh", || server.requests().len() == 2);
    drop(keeper);
    assert!(handle.load().unwrap().generation() > now, "its tokens are not lost");
    assert_eq!(
        handle.wait_newer_than(handle.load().unwrap().generation(), PATIENCE),
        Some(Reload::NoRefresher)
    );
    let next = TokenKeeper::start(app, store, quick()).unwrap();
    assert_eq!(next.handle().load().unwrap().generation(), handle.load().unwrap().generation());
    assert_eq!(next.status().state(), GrantState::Good);
}

#[test]
fn a_grant_is_read_without_a_keeper_a_request_or_a_change() {
    let (folder, server, store) = (Folder::new(), server(|_| ()), MemoryStore::new());
    let app = app(server.address, &folder);
    assert_eq!(app.grant_in(&store), Err(GrantError::None));
    exchange(&app).unwrap().save(&store).unwrap();
    let version = *store.read().unwrap().unwrap().version();
    let view = app.grant_in(&store).unwrap();
    assert_eq!(
        (view.generation().to_string(), view.state(), view.has_lease()),
        ("1".into(), GrantState::Good, false)
    );
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    assert!(view.remaining_at(now) <= hour && view.remaining_at(now) > hour / 2, "{view}");
    assert_eq!(
        view.remaining_at(now - hour * 24),
        hour,
        "a clock that is set back makes no token live longer"
    );
    assert_eq!(view.remaining_at(now + hour * 2), Duration::ZERO);
    assert_eq!(*store.read().unwrap().unwrap().version(), version);
    let lease = "\"lease\": { \"holder\": 7, \"length\": 1000 }";
    change(&store, |text| text.replace("\"lease\": null", lease));
    let view = app.grant_in(&store).unwrap();
    assert!(view.has_lease() && view.to_string().contains("its outcome is unknown"), "{view}");
    assert_eq!(view.state(), GrantState::Good, "it may be under way");
    change(&store, |text| text.replace("\"length\": 1000", "\"length\": 1000, \"taken\": 1000"));
    let view = app.grant_in(&store).unwrap();
    assert_eq!(view.state(), GrantState::InDoubt, "it was taken years ago");
    assert!(view.to_string().contains("in doubt"), "{view}");
    change(&store, |text| text.replace("\"refused\": false", "\"refused\": true"));
    let view = app.grant_in(&store).unwrap();
    assert!(
        view.state() == GrantState::Refused && view.to_string().contains("a person must sign in again"),
        "{view}"
    );
    change(&store, |text| text.replace("shop-sync", "another-app"));
    assert_eq!(app.grant_in(&store), Err(GrantError::OtherApp { what: "client id" }));
    assert_eq!(server.requests().len(), 1, "the exchange alone");
}

/// A store that counts how often it is read.
#[derive(Clone)]
struct Counting(MemoryStore, Arc<AtomicU32>);

impl DocumentStore for Counting {
    pass_on!(0: provenance, limit, write);

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.read()
    }
}

#[test]
fn many_refusals_read_the_store_once_in_an_interval() {
    let folder = Folder::new();
    let number = AtomicU32::new(0);
    let server = Recorder::raw(move |_, stream| match number.fetch_add(1, Ordering::SeqCst) {
        0 => write_answer(stream, JSON, &good(0)),
        _ => write_answer(
            stream,
            "400 Bad Request\r\ncontent-type: application/json",
            r#"{"error":"invalid_grant"}"#,
        ),
    });
    let store = Counting(MemoryStore::new(), Arc::default());
    let app = app(server.address, &folder);
    exchange(&app).unwrap().save(&store).unwrap();
    let keeper = TokenKeeper::start(app, store.clone(), quick()).unwrap();
    let (start, before) = (Instant::now(), store.1.load(Ordering::SeqCst));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while start.elapsed() < Duration::from_secs(2) {
                    refused(&keeper);
                }
            });
        }
    });
    let looks = store.1.load(Ordering::SeqCst) - before;
    // Once in 50 ms; the refresh that ended the grant, and polls, look as well.
    assert!(looks <= 150, "{looks} looks in {:?}", start.elapsed());
}
