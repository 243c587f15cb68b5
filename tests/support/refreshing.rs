//! Helpers for tests of refreshers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keysheath::Cadence;
use keysheath::chain::Chain;
use keysheath::handle::{KeyHandle, Reload};
use keysheath::key::{ApiKey, Kanal, Profile};
use keysheath::refresh::{RefreshEvent, RefreshSettings, Refresher};
use keysheath::source::{Provenance, Reading, Source, SourceError};
use keysheath::store::{DocumentContent, DocumentStore};

use super::keys::Keys;
pub(crate) use super::waiting::{PATIENCE, eventually};

/// Two keys of other accounts or rotations.
pub const SECOND: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";
pub const THIRD: &str = "Qw3Er5Ty7Ui9Op1As2Df4Gh6";

/// Longer than any test takes.
pub const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A refresher that polls all the time.
pub fn quick() -> RefreshSettings {
    RefreshSettings::new().with_cadence(quickly())
}

/// A cadence that polls all the time.
pub fn quickly() -> Cadence {
    Cadence::every(Duration::from_millis(10))
}

/// A cadence without polls.
pub fn rarely() -> Cadence {
    Cadence::every(NEVER).with_jitter(0)
}

/// A refresher that does only what it is asked for.
pub fn only_asked() -> RefreshSettings {
    RefreshSettings::new().with_cadence(rarely())
}

/// The events that refreshers reported.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<RefreshEvent>>>);

impl Events {
    pub fn record(&self, settings: RefreshSettings) -> RefreshSettings {
        let events = self.clone();
        settings.on_event(move |event| events.0.lock().unwrap().push(event.clone()))
    }

    pub fn all(&self) -> Vec<RefreshEvent> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self, is_it: impl Fn(&RefreshEvent) -> bool) -> usize {
        self.all().iter().filter(|event| is_it(event)).count()
    }

    pub fn failures(&self) -> usize {
        self.count(|event| matches!(event, RefreshEvent::Failed { .. }))
    }
}

/// A refresher of this source alone.
pub fn of(source: &Scripted, settings: RefreshSettings) -> Refresher<Kanal> {
    Refresher::from_chain(Chain::<Kanal>::new().with(source.clone()), settings).unwrap()
}

/// Waits for a newer key than the active one, and returns how that ends.
pub fn ask(handle: &KeyHandle<Kanal>) -> Reload {
    handle.wait_newer_than(handle.load().unwrap().generation(), PATIENCE).expect("an answer")
}

pub fn has(handle: &KeyHandle<Kanal>, key: &str) -> bool {
    handle.load().is_ok_and(|snapshot| snapshot.current().matches(key.as_bytes()))
}

pub fn parsed(key: &str) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(key.as_bytes()).unwrap()
}

/// A key set with these keys, each made active after the one before.
pub fn key_set(keys: &[&str]) -> Keys {
    let set = Keys::new();
    for key in keys {
        activate(&set, key);
    }
    set
}

/// A step of a rotation by another process.
pub fn activate(set: &Keys, key: &str) {
    set.activate(&parsed(key));
}

/// Writes over whatever is there.
pub fn persist(store: &dyn DocumentStore, content: &DocumentContent) {
    let there = store.read().unwrap();
    store.write(content, there.as_ref().map(keysheath::store::Document::version)).unwrap();
}

type Answer = dyn Fn(usize) -> Result<Reading, SourceError> + Send + Sync;

/// A source that counts how often it is asked, and answers as its test says; clones are one.
#[derive(Clone)]
pub struct Scripted {
    calls: Arc<AtomicUsize>,
    answer: Arc<Mutex<Arc<Answer>>>,
}

impl Scripted {
    pub fn new(key: &str) -> Self {
        let key = key.to_owned();
        Self { calls: Arc::default(), answer: Arc::new(Mutex::new(Arc::new(move |_| Ok(text(&key))))) }
    }

    pub fn gives(&self, key: &str) {
        let key = key.to_owned();
        self.does(move |_| Ok(text(&key)));
    }

    /// From now on it does this; its argument is how often it was asked before.
    pub fn does(&self, answer: impl Fn(usize) -> Result<Reading, SourceError> + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Source for Scripted {
    fn provenance(&self) -> Provenance {
        Provenance::other("scripted place", "kanal")
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let answer = Arc::clone(&self.answer.lock().unwrap());
        answer(self.calls.fetch_add(1, Ordering::SeqCst))
    }
}

pub fn text(key: &str) -> Reading {
    Reading::present(key.to_owned())
}

/// A gate that is shut until it is opened, or dropped.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, std::sync::Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn shut(&self) {
        *self.0.0.lock().unwrap() = false;
    }

    pub fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(shut, |is_open| !*is_open).unwrap());
    }
}
