//! OpenBao, with the real server: keys and documents in it, each way to sign in, and whatever goes wrong.
#![cfg(all(feature = "openbao", feature = "rotation", target_os = "linux"))]

#[path = "../support/mod.rs"]
mod support;
mod cluster;
mod p1_log;
#[cfg(all(
    feature = "client",
    feature = "emulator",
    feature = "openbao",
    feature = "probe",
    feature = "rotation",
    target_os = "linux"
))]
mod p8_leader_killed;
mod crowd;
mod environment;
mod fleet;
mod login;
mod policies;
mod restart;
mod wrong_server;

use std::time::Duration;

use keysheath::key::{Issuer as _, Kanal, Origin, Roots};
use keysheath::openbao::{Login, OpenBao, OpenBaoError};
use keysheath::source::{self, Absence, OpenBaoField, Problem, Source};
use keysheath::store::{DocumentContent, DocumentError, DocumentStore, OpenBaoStore};
use serde_json::{Value, json};

use support::openbao::{PATIENCE, ROOT, Server, eventually};
use support::{KEY, OTHER_KEY, absence, assert_gives_the_key, error, found};

/// Short, because what is asked here stays as it is.
const SHORT: Duration = Duration::from_millis(1500);

fn field(client: OpenBao, place: &str) -> OpenBaoField {
    OpenBaoField::new(client, place, "key")
}

/// The problem of a source.
#[track_caller]
fn refusal(source: &dyn Source) -> OpenBaoError {
    match error(source).problem() {
        Problem::OpenBao(error) => (**error).clone(),
        other => panic!("{other:?}"),
    }
}

/// The problem of a document: whether nothing has changed, and why.
#[track_caller]
fn refused(outcome: Result<impl std::fmt::Debug, DocumentError>) -> (bool, OpenBaoError) {
    match outcome.unwrap_err() {
        DocumentError::OpenBao(error) => (true, *error),
        DocumentError::Unavailable(Problem::OpenBao(error)) => (false, *error),
        other => panic!("{other:?}"),
    }
}

fn content(text: &str) -> DocumentContent {
    DocumentContent::from(text.as_bytes().to_vec())
}

#[test]
fn a_key_is_read_with_its_version_wherever_the_mount_ends() {
    let server = Server::start();
    server.admin("POST", "sys/mounts/team/kv", &json!({ "type": "kv", "options": { "version": "2" } }));
    for (place, path) in [
        ("secret/shop/kanal", "secret/data/shop/kanal"),
        ("team/kv/shop/ä b#%", "team/kv/data/shop/%C3%A4%20b%23%25"),
    ] {
        let source = field(server.root(), place);
        // What was mounted just now is made ready in the background.
        eventually("the mount", || source::load(&source, Kanal::PROFILE).is_ok());
        assert_eq!(absence(&source), Absence::NoSecret);
        server.admin("POST", path, &json!({ "data": { "key": OTHER_KEY } }));
        server.admin("POST", path, &json!({ "data": { "other": 1, "key": KEY } }));
        assert_gives_the_key(&source);
        let provenance = found(&source).provenance().to_string();
        assert_eq!(provenance, format!("openbao {place}, field key, version 2"));
    }
    let encoded = json!({ "key": support::KEY_IN_BASE64 });
    server.put("secret/encoded", &encoded);
    assert_gives_the_key(&field(server.root(), "secret/encoded").base64());
    let patient = server.root().with_deadline(Duration::MAX);
    assert_gives_the_key(&field(patient, "secret/encoded").base64());
}

#[test]
fn what_is_not_a_key_is_refused_and_not_absent() {
    let server = Server::start();
    let source = field(server.root(), "secret/kanal");
    for value in [json!(1), json!(null), json!({ "key": KEY }), json!([KEY]), json!(true)] {
        server.put("secret/kanal", &json!({ "key": value }));
        assert_eq!(refusal(&source), OpenBaoError::NotText, "{value}");
    }
    server.put("secret/kanal", &json!({ "kay": KEY }));
    assert_eq!(refusal(&source), OpenBaoError::NoField);
    server.put("secret/kanal", &json!({ "key": "" }));
    assert_eq!(support::problem(&source), Problem::Empty);
    for value in [format!("{KEY}\n\n"), KEY[1..].to_owned(), format!("Bearer {KEY}"), "schlüssel".to_owned()]
    {
        server.put("secret/kanal", &json!({ "key": value }));
        assert!(matches!(support::problem(&source), Problem::Malformed(_)), "{value:?}");
    }
    // One newline at the end is removed, as for every source.
    for value in [KEY.to_owned(), format!("{KEY}\n")] {
        server.put("secret/kanal", &json!({ "key": value }));
        assert_gives_the_key(&source);
    }
}

#[test]
fn a_version_that_is_to_be_deleted_later_is_there_until_then() {
    let server = Server::start();
    server.admin("POST", "secret/metadata/kanal", &json!({ "delete_version_after": "1h" }));
    server.admin("POST", "secret/metadata/keys", &json!({ "delete_version_after": "4s" }));
    server.put("secret/kanal", &json!({ "key": KEY }));
    assert_gives_the_key(&field(server.root(), "secret/kanal"));

    let store = OpenBaoStore::new(server.root(), "secret/keys");
    let version = store.write(&content("one"), None).unwrap();
    assert_eq!(store.version(), Ok(Some(version)));
    let version = store.write(&content("two"), Some(&version)).unwrap();
    assert_eq!(store.read().unwrap().unwrap().version(), &version);
    // And not after it.
    eventually("its end", || store.version().is_err());
    assert_eq!(refused(store.version()), (true, OpenBaoError::Deleted { version: 2 }));
    assert_eq!(refused(store.read()), (true, OpenBaoError::Deleted { version: 2 }));
}

#[test]
fn a_deleted_version_is_an_error_that_says_how_to_restore_it() {
    let server = Server::start();
    let source = field(server.root(), "secret/kanal");
    let store = OpenBaoStore::new(server.root(), "secret/kanal");
    server.put("secret/kanal", &json!({ "key": KEY }));
    server.admin("DELETE", "secret/data/kanal", &Value::Null);
    let deleted = OpenBaoError::Deleted { version: 1 };
    assert!(deleted.to_string().contains("undelete"));
    assert_eq!(refusal(&source), deleted);
    assert_eq!(refused(store.read()), (true, deleted.clone()));
    assert_eq!(refused(store.version()), (true, deleted.clone()));
    assert_eq!(refused(store.write(&content("text"), None)), (true, deleted));
    server.admin("POST", "secret/undelete/kanal", &json!({ "versions": [1] }));
    assert_gives_the_key(&source);
    server.admin("POST", "secret/destroy/kanal", &json!({ "versions": [1] }));
    let destroyed = OpenBaoError::Destroyed { version: 1 };
    assert_eq!(refusal(&source), destroyed);
    assert_eq!(refused(store.version()), (true, destroyed));
    server.admin("DELETE", "secret/metadata/kanal", &Value::Null);
    assert_eq!(absence(&source), Absence::NoSecret);
}

#[test]
fn a_mount_that_is_missing_or_has_no_versions_is_refused() {
    let server = Server::start();
    for place in ["none/kanal", "none/kanal/shop", "secret", "cubbyhole/kanal"] {
        let expected =
            if place.starts_with("cubby") { OpenBaoError::NotVersion2 } else { OpenBaoError::NoMount };
        assert_eq!(refusal(&field(server.root(), place)), expected, "{place}");
    }
    server.admin("POST", "sys/mounts/old", &json!({ "type": "kv", "options": { "version": "1" } }));
    // It would answer as version 2 does, but for the metadata.
    server.admin("POST", "old/data/kanal", &json!({ "data": { "key": KEY } }));
    server.admin("POST", "old/kanal", &json!({ "key": KEY }));
    assert_eq!(refusal(&field(server.root(), "old/kanal")), OpenBaoError::NotVersion2);
    let store = OpenBaoStore::new(server.root(), "old/keys");
    assert_eq!(refused(store.write(&content("text"), None)), (true, OpenBaoError::NotVersion2));
    assert_eq!(refused(store.read()), (true, OpenBaoError::NotVersion2));
}

#[test]
fn a_mount_that_loses_its_versions_while_it_is_used_is_refused() {
    let server = Server::start();
    let source = field(server.root(), "secret/kanal");
    server.put("secret/kanal", &json!({ "key": KEY }));
    let store = OpenBaoStore::new(server.root(), "secret/keys");
    store.write(&content("text"), None).unwrap();
    assert_gives_the_key(&source);
    server.admin("DELETE", "sys/mounts/secret", &Value::Null);
    assert_eq!(refusal(&source), OpenBaoError::NoMount);
    server.admin("POST", "sys/mounts/secret", &json!({ "type": "kv", "options": { "version": "1" } }));
    server.admin("POST", "secret/data/kanal", &json!({ "data": { "key": OTHER_KEY } }));
    server.admin("POST", "secret/data/keys", &json!({ "data": { "keysheath": "document 1" } }));
    assert_eq!(refusal(&source), OpenBaoError::NotVersion2);
    assert_eq!(refused(store.read()), (true, OpenBaoError::NotVersion2));
    assert_eq!(refused(store.write(&content("late"), None)), (true, OpenBaoError::NotVersion2));
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_nothing_is_asked() {
    let server = Server::start();
    for place in ["", "/secret/kanal", "secret/kanal/", "secret//kanal", "secret/../sys", "secret/\n"] {
        let error = refusal(&field(server.root(), place));
        assert!(matches!(error, OpenBaoError::BadName { .. }), "{place:?}: {error:?}");
    }
    for namespace in ["", "a//b", "/a", "a\nb", "ä"] {
        assert!(matches!(server.root().with_namespace(namespace), Err(OpenBaoError::BadName { .. })));
    }
}

#[test]
fn a_namespace_is_asked_and_no_other() {
    let server = Server::start();
    server.admin("POST", "sys/namespaces/team", &Value::Null);
    let mount = json!({ "type": "kv", "options": { "version": "2" } });
    server.admin_in("team", "POST", "sys/mounts/secret", &mount);
    let inside = field(server.root().with_namespace("team").unwrap(), "secret/kanal");
    eventually("the mount", || source::load(&inside, Kanal::PROFILE).is_ok());
    server.put("secret/kanal", &json!({ "key": OTHER_KEY }));
    assert_eq!(absence(&inside), Absence::NoSecret);
    server.admin_in("team", "POST", "secret/data/kanal", &json!({ "data": { "key": KEY } }));
    assert_gives_the_key(&inside);
    let nowhere = field(server.root().with_namespace("none").unwrap(), "secret/kanal");
    assert_eq!(refusal(&nowhere), OpenBaoError::NoNamespace);
}

#[test]
fn a_sealed_stopped_or_new_server_is_unavailable_for_a_time() {
    let mut server = Server::start();
    server.put("secret/kanal", &json!({ "key": KEY }));
    let source = field(server.root().with_deadline(SHORT), "secret/kanal");
    let store = OpenBaoStore::new(server.root().with_deadline(SHORT), "secret/keys");
    assert_gives_the_key(&source);
    server.admin("POST", "sys/seal", &Value::Null);
    assert_eq!(refusal(&source), OpenBaoError::Sealed);
    assert_eq!(refused(store.read()), (false, OpenBaoError::Sealed));
    assert_eq!(refused(store.write(&content("text"), None)), (false, OpenBaoError::Sealed));
    server.stop();
    assert!(matches!(refusal(&source), OpenBaoError::NoAnswer(_)));
    assert!(matches!(refused(store.version()), (false, OpenBaoError::NoAnswer(_))));
}

#[test]
fn a_server_that_restarts_while_it_is_asked_is_waited_for() {
    let server = Server::start();
    server.put("secret/kanal", &json!({ "key": KEY }));
    // It goes through a relay, so that the server's own memory outlives its absence.
    let relay = fleet::Relay::to(server.port);
    let roots = Roots::from_pem(server.pem.as_bytes()).unwrap();
    let address = keysheath::key::Origin::parse(&format!("https://127.0.0.1:{}", relay.port())).unwrap();
    let client = OpenBao::at(address, Login::token(ROOT.into())).unwrap();
    let source = field(client.with_roots(roots).with_deadline(PATIENCE), "secret/kanal");
    assert_gives_the_key(&source);
    let waiting = std::thread::spawn({
        let (source, relay) = (source.clone(), relay.clone());
        relay.stop();
        move || assert_gives_the_key(&source)
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!waiting.is_finished(), "it waits");
    relay.start();
    waiting.join().unwrap();
}

#[test]
fn no_token_goes_to_a_server_with_an_unknown_authority() {
    let server = Server::start();
    let client = OpenBao::at(server.address(), Login::token(ROOT.into())).unwrap().with_deadline(SHORT);
    let error = refusal(&field(client.clone(), "secret/kanal"));
    assert_eq!(error, OpenBaoError::NoAnswer(keysheath::failure::Obstacle::Tls));
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let roots = Roots::from_pem(other.cert.pem().as_bytes()).unwrap();
    let error = refusal(&field(client.with_roots(roots), "secret/kanal"));
    assert_eq!(error, OpenBaoError::NoAnswer(keysheath::failure::Obstacle::Tls));
}

#[test]
fn a_document_that_was_deleted_and_made_again_is_another_one() {
    let server = Server::start();
    let store = OpenBaoStore::new(server.root(), "secret/keys");
    let old = store.write(&content("old"), None).unwrap();
    server.admin("DELETE", "secret/metadata/keys", &Value::Null);
    assert_eq!(store.read().unwrap_err(), DocumentError::Stale, "it was there");
    let other = OpenBaoStore::new(server.root(), "secret/keys");
    let new = other.write(&content("new"), None).unwrap();
    assert_ne!(old, new);
    assert_eq!(store.write(&content("late"), Some(&old)), Err(DocumentError::Conflict));
    assert_eq!(other.version(), Ok(Some(new)));
}

#[test]
fn what_is_no_document_or_a_newer_one_is_left_as_it_is() {
    let server = Server::start();
    let store = OpenBaoStore::new(server.root(), "secret/keys");
    for (data, expected) in [
        (json!({ "key": KEY }), DocumentError::Corrupt),
        (json!({ "keysheath": "document 1" }), DocumentError::Corrupt),
        (json!({ "keysheath": "document 1", "content": "%" }), DocumentError::Corrupt),
        (json!({ "keysheath": "document 1", "content": 7 }), DocumentError::Corrupt),
        (json!({ "keysheath": "other", "content": "" }), DocumentError::Corrupt),
        (json!({ "keysheath": "document 2", "content": "" }), DocumentError::Newer),
    ] {
        server.put("secret/keys", &data);
        assert_eq!(store.read().unwrap_err(), expected, "{data}");
    }
    assert!(store.version().unwrap().is_some());
}
