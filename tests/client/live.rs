//! The client on a live handle: which request is repeated, when, and with which key. A real refresher reads a
//! place that the test fills, and requests go to the emulator over real HTTP.
//!
//! The steps of a single request are tested in `tests/units/client/live.rs`.

mod answers;
mod doubtful;
mod load;
#[cfg(feature = "reqwest")]
mod middleware;

use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use keysheath::chain::Chain;
use keysheath::client::OriginGuard;
use keysheath::emulator::{Emulator, EmulatorSettings, Fault, FaultRule};
use keysheath::handle::{Generation, KeyHandle, Reload};
use keysheath::key::{Issuer as _, Kanal, RawKey};
use keysheath::refresh::{RefreshSettings, Refresher};

use crate::support::refreshing::{PATIENCE, Scripted, only_asked, rarely};

const REFUSED: &str = r#"{ "error": "Invalid API key" }"#;

/// A key that the emulator does not know.
const STRANGE: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";

fn strange() -> RawKey {
    RawKey::parse(Kanal::PROFILE, STRANGE.as_bytes()).unwrap()
}

/// A refresher that reloads on request, without a minimum interval.
fn settings() -> RefreshSettings {
    only_asked()
        .with_cadence(rarely().with_minimum_interval(Duration::ZERO))
        .with_grace(Duration::from_secs(600))
}

fn number(generation: Generation) -> u64 {
    generation.to_string().parse().unwrap()
}

/// Fails if there is no answer in time.
async fn in_time<F: Future>(answer: F) -> F::Output {
    tokio::time::timeout(PATIENCE, answer).await.expect("no answer")
}

/// The emulator, and a live handle whose first key is the emulator's.
struct Shop {
    emulator: Emulator,
    handle: KeyHandle<Kanal>,
    refresher: Option<Refresher<Kanal>>,
    place: Scripted,
    /// How often the test itself read the place.
    own_calls: AtomicUsize,
}

impl Shop {
    fn open() -> Self {
        Self::open_with(settings())
    }

    fn open_with(settings: RefreshSettings) -> Self {
        let emulator = unlimited().start().unwrap();
        let place = Scripted::new(emulator.key().expose_secret());
        let refresher = Refresher::from_chain(Chain::<Kanal>::new().with(place.clone()), settings).unwrap();
        let own_calls = AtomicUsize::new(1);
        Self { emulator, handle: refresher.handle(), refresher: Some(refresher), place, own_calls }
    }

    /// The active key was deleted, and the place has another.
    fn after_a_rotation() -> Self {
        let shop = Self::open();
        shop.place.gives(shop.emulator.create_key("new").unwrap().key().expose_secret());
        shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
        shop
    }

    /// The emulator does not know the active key, of generation 2; the previous key is the emulator's.
    fn with_a_bad_active_key(settings: RefreshSettings) -> Self {
        let shop = Self::open_with(settings);
        shop.publish(&strange());
        shop
    }

    /// Puts a key in the place and reloads it, without a request that causes that.
    fn publish(&self, key: &RawKey) {
        self.place.gives(key.expose_secret());
        assert_eq!(self.refresh_now(), Some(Reload::Newer));
    }

    fn refresh_now(&self) -> Option<Reload> {
        self.own_calls.fetch_add(1, Ordering::SeqCst);
        self.refresher.as_ref().expect("the refresher runs").refresh_now(PATIENCE)
    }

    /// How many reloads the requests have caused.
    fn reloads(&self) -> usize {
        if self.refresher.is_some() {
            // An earlier reload has ended then.
            assert!(self.refresh_now().is_some());
        }
        self.place.calls() - self.own_calls.load(Ordering::SeqCst)
    }

    fn refused(&self) -> Option<u64> {
        self.handle.refused().map(number)
    }

    fn active(&self) -> u64 {
        number(self.handle.load().unwrap().generation())
    }

    fn guard(&self) -> OriginGuard<Kanal> {
        OriginGuard::for_loopback(self.emulator.origin().clone()).unwrap()
    }

    fn uri(&self, path: &str) -> String {
        format!("{}/api/v1/stores/123/{path}", self.emulator.origin())
    }

    /// Sets the answer to the next request.
    fn answers(&self, fault: Fault) {
        self.emulator.add_fault(FaultRule::new(fault).with_start(1)).unwrap();
    }

    /// The statuses of the emulator's answers.
    fn statuses(&self) -> Vec<u16> {
        self.emulator.journal().iter().map(|entry| entry.status.unwrap_or(0)).collect()
    }
}

/// Kanal without its rate limit: each reading of the clock is in another window.
fn unlimited() -> EmulatorSettings {
    let minutes = AtomicU32::new(0);
    Emulator::kanal().with_clock(move || {
        SystemTime::UNIX_EPOCH + Duration::from_secs(61) * minutes.fetch_add(1, Ordering::Relaxed)
    })
}
