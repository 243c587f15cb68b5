//! A refresher in every state, and what it tells.

use crate::support::keys::Keys;
use std::sync::{Arc, Mutex as Locked};

use keysheath::Cadence;
use keysheath::handle::{NoActiveKey, Previous, Reload, Subscription};
use keysheath::refresh::{
    RefreshError, RefreshEvent, RefreshSettings, RefreshStatus, Refresher, ReloadError, ReloadProblem,
};
use keysheath::store::{DocumentContent, DocumentStore as _, MemoryStore};

use super::*;

const PATIENCE: Duration = Duration::from_secs(120);

/// Settings that look at each event, and count them.
fn looking(events: &Arc<Locked<usize>>) -> RefreshSettings {
    let events = Arc::clone(events);
    let settings = RefreshSettings::new()
        .with_cadence(Cadence::every(Duration::from_secs(24 * 3600)))
        .on_event(move |event: &RefreshEvent| {
            assert_value_silent("an event", event);
            *events.lock().unwrap() += 1;
        });
    assert_debug_silent("settings", &settings);
    settings
}

fn look(refresher: &Refresher<Kanal>) {
    assert_debug_silent("a refresher", refresher);
    let status: RefreshStatus = refresher.status();
    assert_value_silent("a status", &status);
    if let Some(error) = status.health().problem() {
        let error: &ReloadError = error;
        assert_error_silent("a failed reload", error);
        let problem: &ReloadProblem = error.problem();
        assert_error_silent("why it failed", problem);
    }
}

#[test]
fn a_refresher_of_a_source_shows_no_key() {
    let folder = Folder::new();
    let events = Arc::default();
    let path = folder.write("key", KANAL);
    let chain = || Chain::<Kanal>::new().with(SecretFile::new(&path));
    let refresher = Refresher::from_chain(chain(), looking(&events)).unwrap();
    look(&refresher);
    let harms: [&[u8]; 6] = [
        b"",
        &[KANAL.as_bytes(), b"\n\n"].concat(),
        &KANAL.as_bytes()[1..],
        &[b"Bearer ", KANAL.as_bytes()].concat(),
        &[KANAL.as_bytes(), b"\xff"].concat(),
        &KANAL.as_bytes().repeat(1000),
    ];
    for harm in harms {
        folder.write("key", harm);
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        look(&refresher);
        let error: RefreshError = Refresher::from_chain(chain(), looking(&events)).unwrap_err();
        assert_error_silent("a refresher that does not start", &error);
    }
    folder.write("key", OTHER);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    look(&refresher);
    drop(refresher);
    assert_eq!(*events.lock().unwrap(), 9, "the key, six failures, the recovery, and the other key");
}

#[test]
fn a_live_handle_and_what_is_waited_for_show_no_key() {
    let folder = Folder::new();
    let path = folder.write("key", KANAL);
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
    let refresher = Refresher::from_chain(chain, RefreshSettings::new()).unwrap();
    let handle = refresher.handle();
    let first = handle.load().unwrap();
    folder.write("key", OTHER);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    let snapshot = handle.load().unwrap();
    let previous: Previous<'_, Kanal> = snapshot.previous().expect("it has its grace");
    assert!(previous.key().matches(KANAL.as_bytes()));
    assert_debug_silent("the previous key", &previous);
    assert_debug_silent("a snapshot", &first);
    assert_debug_silent("a snapshot with a previous key", &snapshot);
    assert_debug_silent("a live handle", &handle);
    let subscription: Subscription<Kanal> = handle.subscribe();
    assert_debug_silent("a subscription", &subscription);
    assert_error_silent("a closed handle", &NoActiveKey::Compromised);
}

#[test]
fn a_refresher_of_a_store_shows_no_key() {
    let store = MemoryStore::new();
    let keys = Keys::new();
    let key = ApiKey::<Kanal>::parse_bytes(KANAL.as_bytes()).unwrap();
    keys.adopt(&key).unwrap();
    let mut version = store.write(&keys.to_document(), None).unwrap();
    let events = Arc::default();
    let refresher = Refresher::<Kanal>::from_store(store.clone(), looking(&events)).unwrap();
    look(&refresher);
    let good = keys.to_document();
    let good = good.expose_secret();
    for harm in [&good[..good.len() - 4], KANAL.as_bytes(), b"", &good[..good.len() / 3]] {
        version = store.write(&DocumentContent::from(harm.to_vec()), Some(&version)).unwrap();
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        look(&refresher);
        let error = Refresher::<Kanal>::from_store(store.clone(), looking(&events)).unwrap_err();
        assert_error_silent("a refresher that does not start", &error);
    }
    drop(refresher);
    assert_eq!(*events.lock().unwrap(), 5);
}

#[cfg(feature = "watch")]
#[test]
fn whether_files_are_watched_shows_no_key() {
    use keysheath::refresh::WatchProblem;

    for problem in [WatchProblem::TooMany, WatchProblem::Hangs, WatchProblem::Failed] {
        assert_error_silent("why nothing is watched", &problem);
    }
}

#[cfg(feature = "tracing")]
#[test]
fn what_a_refresher_tells_tracing_shows_no_key() {
    use crate::support::traced::Collector;

    let collector = Collector::default();
    let folder = Folder::new();
    let path = folder.write("key", KANAL);
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
    let subscriber = collector.clone();
    // The refresher's thread has no subscriber but the one of the whole process.
    in_silent_child("refresh::what_a_refresher_tells_tracing_shows_no_key", &[], move || {
        tracing::subscriber::set_global_default(subscriber).unwrap();
        let refresher = Refresher::from_chain(chain, RefreshSettings::new()).unwrap();
        folder.write("key", KANAL.repeat(2));
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        folder.write("key", OTHER);
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
        drop(refresher);
        let lines = collector.lines();
        let own: Vec<&String> = lines.iter().filter(|line| line.contains("keysheath::refresh")).collect();
        let levels = own.iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>();
        assert_eq!(levels, ["INFO", "WARN", "INFO", "INFO"], "{own:?}");
        assert_silent("what tracing receives", &lines.join("\n"));
    });
}
