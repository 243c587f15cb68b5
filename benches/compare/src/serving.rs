//! Creating keys, and authorizing requests with them, on a server of 100,000 keys.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hint::black_box;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use keysheath::key::{Issuer as _, StoreId};
use keysheath::registry::{Authorize as _, KeyRegistry, RequestedStore, TeamId};
use prefixed_api_key::rand::rngs::OsRng;
use prefixed_api_key::sha2::{Digest as _, Sha256};
use prefixed_api_key::{PrefixedApiKey, PrefixedApiKeyController};

use super::{KEY, Kanal, row, row_of_many};

const KEYS: usize = 100_000;

/// What a server keeps of a key.
#[derive(Clone, Copy)]
struct Record {
    team: u32,
    store: StoreId,
}

pub(super) fn rows() {
    let store = StoreId::new(1).expect("positive");
    let (registry, keys) = registry(store);
    creating(&registry);
    let asked = Asked::new(&keys);
    let ours = || asked.next(|headers| registry.authorize(headers, RequestedStore::Store(store)).is_ok());
    prefixed(ours, store);
    by_digest(ours, &asked, &keys, store);
    limits(ours, &asked);
}

fn registry(store: StoreId) -> (KeyRegistry, Vec<String>) {
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).expect("a registry");
    registry.put_store(store, TeamId::new(1)).expect("in memory");
    let create = |_| {
        let new = registry.create_key(TeamId::new(1), "production").expect("in memory");
        new.key().expose_secret().to_owned()
    };
    let keys = (0..KEYS).map(create).collect();
    (registry, keys)
}

fn controller() -> PrefixedApiKeyController<OsRng, Sha256> {
    PrefixedApiKeyController::configure()
        .prefix("kanal".to_owned())
        .rng_osrng()
        .default_lengths()
        .finalize()
        .expect("a prefix")
}

/// Keys that are asked for one after another, so that their records are not in the nearest cache: in the
/// order of their texts, which is unrelated to that of their creation.
struct Asked {
    values: Vec<HeaderValue>,
    at: Cell<usize>,
    headers: RefCell<HeaderMap>,
}

impl Asked {
    fn new(keys: &[String]) -> Self {
        let mut keys: Vec<&String> = keys.iter().collect();
        keys.sort_unstable();
        let value = |key: &&String| HeaderValue::from_str(&format!("Bearer {key}")).expect("a value");
        let values = keys.iter().map(value).collect();
        Self { values, at: Cell::new(0), headers: RefCell::new(HeaderMap::new()) }
    }

    /// Asks for the next key. Both sides pay for the header.
    fn next(&self, accepts: impl Fn(&HeaderMap) -> bool) {
        let at = self.at.get();
        self.at.set(if at + 1 < self.values.len() { at + 1 } else { 0 });
        let mut headers = self.headers.borrow_mut();
        headers.insert(AUTHORIZATION, self.values[at].clone());
        assert!(accepts(black_box(&headers)), "each key is known");
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn creating(registry: &KeyRegistry) {
    let ours = || registry.create_key(TeamId::new(2), "production").expect("in memory").key().fingerprint();
    let (controller, table) = (controller(), RefCell::new(HashMap::new()));
    let theirs = || {
        let (key, hash) = black_box(&controller).generate_key_and_hash();
        table.borrow_mut().insert(key.short_token().to_owned(), hash);
        key
    };
    let what = "`KeyRegistry::create_key`, its fingerprint";
    row(what, ours, "`prefixed-api-key`: `generate_key_and_hash`, put into a map", theirs);
}

const WHAT: &str = "`KeyRegistry::authorize`, 100,000 keys";

fn prefixed(ours: impl Fn(), store: StoreId) {
    let controller = controller();
    let (mut table, mut keys) = (HashMap::new(), Vec::new());
    for _ in 0..KEYS {
        let (key, hash) = controller.generate_key_and_hash();
        keys.push(key.to_string());
        table.insert(key.short_token().to_owned(), (hash, Record { team: 1, store }));
    }
    let asked = Asked::new(&keys);
    let check = |headers: &HeaderMap| {
        let key = PrefixedApiKey::from_string(presented(headers)?).ok()?;
        let (hash, record) = table.get(key.short_token())?;
        (controller.check_hash(&key, hash) && record.store == store).then_some(record.team)
    };
    let theirs = || asked.next(|headers| check(headers).is_some());
    row_of_many(
        WHAT,
        ours,
        "`prefixed-api-key`: parse, a map by the short token, `check_hash`, the store",
        theirs,
    );
}

fn by_digest(ours: impl Fn(), asked: &Asked, keys: &[String], store: StoreId) {
    let record = Record { team: 1, store };
    let table: HashMap<[u8; 32], Record> =
        keys.iter().map(|key| (Sha256::digest(key).into(), record)).collect();
    let check = |headers: &HeaderMap| {
        let digest: [u8; 32] = Sha256::digest(presented(headers)?).into();
        let record = *table.get(&digest)?;
        (record.store == store).then_some(record.team)
    };
    let theirs = || asked.next(|headers| check(headers).is_some());
    row_of_many(WHAT, ours, "SHA-256, the standard map, the store", theirs);
}

fn limits(ours: impl Fn(), asked: &Asked) {
    let hash = [7; 32];
    let keyed = || {
        asked.next(|headers| {
            let key = presented(headers).unwrap_or(KEY);
            blake3::keyed_hash(&hash, key.as_bytes()).as_bytes()[0] < 255 || key.len() == KEY.len()
        });
    };
    row_of_many(WHAT, &ours, "limit: one keyed BLAKE3 of the key", keyed);
    let chase = Chase::new();
    row_of_many(WHAT, ours, "limit: one cache miss", || chase.next());
}

/// Lines of memory in one random ring, larger than any cache.
struct Chase {
    lines: Vec<[u32; 16]>,
    at: Cell<u32>,
}

impl Chase {
    fn new() -> Self {
        let count: u32 = 1 << 21;
        let mut order: Vec<u32> = (0..count).collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for at in (1..order.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            order.swap(at, usize::try_from(state % (at as u64 + 1)).expect("below the count"));
        }
        let mut lines = vec![[0; 16]; order.len()];
        for (at, &line) in order.iter().enumerate() {
            lines[line as usize][0] = order[(at + 1) % order.len()];
        }
        Self { lines, at: Cell::new(0) }
    }

    fn next(&self) {
        self.at.set(self.lines[self.at.get() as usize][0]);
    }
}
