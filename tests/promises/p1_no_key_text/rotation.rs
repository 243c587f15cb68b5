//! Rotations: what each step, outcome, error and audit shows.

use std::fmt::{Debug, Display};
use std::sync::Arc;

use keysheath::failure::Answer;
use keysheath::handle::Stop;
use keysheath::keyset::KeyInfo;
use keysheath::probe::{Finding, Probe, Report};
use keysheath::rotation::{
    Aborted, AuditAction, AuditError, AuditEvent, CheckedBy, KeyDetails, NextStep, Reason, Retirement,
    Rotation, RotationError, RotationPolicy, RotationStatus, Transition, Verification,
};
use keysheath::store::{DocumentContent, DocumentStore, FileStore, MemoryStore};

use super::*;
use crate::support::steps::Now as _;

fn key(text: &str) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(text.as_bytes()).unwrap()
}

/// Refuses the keys that are listed, and accepts every other.
#[derive(Clone, Default)]
struct Refuses(Arc<Mutex<Vec<&'static str>>>);

impl Probe for Refuses {
    fn probe(&self, key: &RawKey) -> Report {
        let is_refused = self.0.lock().unwrap().iter().any(|text| key.matches(text.as_bytes()));
        let meaning = if is_refused { Meaning::KeyRefused } else { Meaning::Accepted };
        Report::new(Finding::new(Ok(Answer::new(if is_refused { 401 } else { 201 }, meaning))))
    }
}

fn transition<T: Display + Debug>(what: &str, transition: &Result<T, RotationError>) {
    match transition {
        Ok(transition) => assert_value_silent(what, transition),
        Err(error) => assert_error_silent(what, error),
    }
}

/// What a rotation shows between two steps.
fn look(rotation: &Rotation<Kanal>) {
    assert_debug_silent("a rotation", rotation);
    let status: RotationStatus = rotation.status().unwrap();
    assert_value_silent("a status", &status);
    let slots = [status.keys().current(), status.keys().pending(), status.keys().previous()];
    for slot in slots.into_iter().flatten() {
        let slot: &KeyInfo = slot;
        assert_value_silent("a place", slot);
    }
    let step: NextStep = rotation.next_step().unwrap();
    assert_value_silent("a next step", &step);
    if let NextStep::Create { reason, .. } = step {
        let reason: Reason = reason;
        assert_debug_silent("a reason", &reason);
    }
}

#[test]
fn neither_a_rotation_step_nor_its_audit_file_shows_a_key() {
    let folder = Folder::new();
    let path = folder.at("audit.jsonl");
    let refuses = Refuses::default();
    let events = Arc::new(Mutex::new(Vec::<AuditEvent>::new()));
    let sink = Arc::clone(&events);
    let policy = RotationPolicy::new().with_activation(Duration::ZERO).with_grace(Duration::ZERO);
    let policy = policy.with_settle(Duration::ZERO).with_activation(Duration::ZERO);
    assert_debug_silent("a policy", &policy);
    let rotation = Rotation::<Kanal>::open(FileStore::new(folder.at("keys")), policy)
        .unwrap()
        .with_probe(refuses.clone())
        .with_operator("anna")
        .with_audit_file(&path)
        .on_event(move |event| sink.lock().unwrap().push(event.clone()))
        .with_audit_file(folder.at("none/audit"))
        .on_event(|_| panic!("on purpose"));
    assert_debug_silent("a rotation", &rotation);
    look(&rotation);
    let leaky = key(KANAL);
    let details: KeyDetails<'_, Kanal> = KeyDetails::new(&leaky).with_name(KANAL).with_note(OTHER);
    assert_debug_silent("what is reported of a key", &details);
    transition("adopt with the key as its name", &rotation.adopt(details));
    transition("adopt", &rotation.adopt(&key(KANAL)));
    let stopped: Stop = rotation.handle().stop(&ApiKey::parse(KANAL).unwrap());
    assert_debug_silent("a stop", &stopped);
    transition("adopt again", &rotation.adopt(&key(OTHER)));
    look(&rotation);
    transition("stage the same", &rotation.stage(&key(KANAL)));
    transition(
        "stage with the key as a note",
        &rotation.stage(KeyDetails::new(&key(OTHER)).with_note(KANAL)),
    );
    transition(
        "stage with the new key as a note",
        &rotation.stage(KeyDetails::new(&key(OTHER)).with_note(OTHER)),
    );
    transition("stage", &rotation.stage(KeyDetails::new(&key(OTHER)).with_note("spring")));
    look(&rotation);
    refuses.0.lock().unwrap().push(OTHER);
    let verification: Verification = rotation.verify_now().unwrap();
    assert_value_silent("a refused verification", &verification);
    refuses.0.lock().unwrap().clear();
    assert_value_silent("a verification", &rotation.verify_now().unwrap());
    let id = rotation.status().unwrap().keys().pending().unwrap().rotation();
    assert_debug_silent("what to promote or retire", &CheckedBy::Person(id));
    let promoted: Transition = rotation.promote(id).unwrap();
    assert_value_silent("promote", &promoted);
    look(&rotation);
    for refused in [&[][..], &[KANAL, OTHER], &[OTHER]] {
        *refuses.0.lock().unwrap() = refused.to_vec();
        let retirement: Retirement = rotation.retire_now().unwrap();
        assert_value_silent("a retirement", &retirement);
        look(&rotation);
    }
    transition("roll back", &rotation.roll_back_now());
    let aborted: Aborted = rotation.abort_now().unwrap();
    assert_value_silent("abort", &aborted);
    let fingerprint = key(KANAL).fingerprint().unwrap();
    transition("compromise with the key as a note", &rotation.compromise_with_note(fingerprint, KANAL));
    transition("compromise", &rotation.compromise(fingerprint));
    look(&rotation);
    let events = events.lock().unwrap();
    assert!(events.len() > 6, "only {} events", events.len());
    for event in &*events {
        assert_value_silent("an event", event);
        assert_silent("a line", &event.to_json());
        let action: AuditAction = event.action;
        assert_value_silent("an action", &action);
    }
    let status = rotation.status().unwrap();
    let error: &AuditError = status.audit_error().unwrap();
    assert_error_silent("what the audit says", error);
    assert_silent("the audit file", &std::fs::read_to_string(&path).unwrap());
}

#[test]
fn a_rotation_that_is_refused_shows_no_key() {
    let refused = |what: &str, error: RotationError| assert_error_silent(what, &error);
    for text in [
        KANAL.to_owned(),
        format!("{{\"keysheath\": \"{KANAL}\", \"form\": 1}}"),
        format!("{{\"keysheath\": \"key set\", \"form\": 1, \"issuer\": \"{KANAL}\"}}"),
    ] {
        let store = MemoryStore::new();
        store.write(&DocumentContent::from(text.into_bytes()), None).unwrap();
        let opened = Rotation::<Kanal>::open(store, RotationPolicy::new());
        refused("a document that is no key set", opened.map(drop).unwrap_err());
    }
    let rotation =
        Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new()).unwrap().with_operator(KANAL);
    refused("a name that is the key", rotation.adopt(&key(KANAL)).unwrap_err());
    refused("nothing there", rotation.promote_now().unwrap_err());
    let long = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())
        .unwrap()
        .with_operator(KANAL.repeat(9));
    refused("a long name", long.adopt(&key(OTHER)).unwrap_err());
}
