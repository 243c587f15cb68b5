//! Untrusted `Authorization` headers: one on each line. A first line `@` means that a browser sent the
//! request.

use std::sync::LazyLock;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use keysheath::failure::Meaning;
use keysheath::key::{Issuer, Kanal, RawKey, StoreId};
use keysheath::registry::{Authorize, KeyRegistry, RequestedStore, StaticKeys, TeamId};

/// The key that is known.
const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

static REGISTRY: LazyLock<KeyRegistry> = LazyLock::new(|| {
    // Six bits of each random byte are an index into the alphabet.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let place = |byte: u8| alphabet.iter().position(|&known| known == byte).unwrap();
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).unwrap().with_random(move |bytes| {
        for (random, key) in bytes.iter_mut().zip(KEY.bytes().cycle()) {
            *random = u8::try_from(place(key)).unwrap();
        }
        Ok(())
    });
    registry.put_store(store(), TeamId::new(1)).unwrap();
    let new = registry.create_key(TeamId::new(1), "fuzzed").unwrap();
    assert!(new.key().matches(KEY.as_bytes()));
    registry
});

static STATIC: LazyLock<StaticKeys> =
    LazyLock::new(|| StaticKeys::new(RawKey::parse(Kanal::PROFILE, KEY.as_bytes()).unwrap()));

fn store() -> StoreId {
    StoreId::new(123).unwrap()
}

pub fn authorization_header(data: &[u8]) {
    let mut headers = HeaderMap::new();
    let mut values = Vec::new();
    let mut from_browser = false;
    for line in data.split(|&byte| byte == b'\n') {
        if line == b"@" {
            from_browser = true;
            headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("none"));
        } else if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(AUTHORIZATION, value);
            values.push(line);
        }
    }
    let expected = match values[..] {
        [] => Err(Meaning::KeyMissing),
        [value] if is_the_key(value) => Ok(from_browser),
        _ => Err(Meaning::KeyRefused),
    };
    for keys in [&*REGISTRY as &dyn Authorize, &*STATIC] {
        for wanted in [RequestedStore::NoStore, RequestedStore::Store(store())] {
            let answer = keys.authorize(&headers, wanted);
            let shown = format!("{answer:?}");
            assert!(!shown.contains(&KEY[..6]), "the key is shown");
            let found =
                answer.map(|principal| principal.is_from_browser()).map_err(|refusal| refusal.meaning());
            assert_eq!(found, expected, "{} headers", values.len());
        }
    }
}

/// A second implementation of RFC 9110 and 6750: the scheme in any case, 1 to 64 spaces, the key.
fn is_the_key(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    let Some((scheme, rest)) = text.split_once(' ') else { return false };
    let key = rest.trim_start_matches(' ');
    scheme.eq_ignore_ascii_case("bearer") && rest.len() - key.len() < 64 && key == KEY
}
