//! An issuer's format, widened by the application's own word: each way that a key enters takes the longer
//! keys.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use keysheath::Cadence;
use keysheath::client::OriginGuard;
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Issuer, Kanal, Katana, KeyFormat, Origin, Profile, RawKey, StoreId};
use keysheath::keyset::KeySet;
use keysheath::probe::{HttpProbe, Probe as _, Verdict};
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::registry::{Authorize as _, RequestedStore, StaticKeys};
use keysheath::source::{self, Loaded, SecretFile};

use super::Chain;
use crate::support::keys::Keys;
use crate::support::{Folder, KEY, OTHER_KEY};

/// Kanal, with keys of 24 to 64 characters.
#[derive(Debug)]
enum LongKanal {}

impl Issuer for LongKanal {
    const PROFILE: &'static Profile = &Kanal::PROFILE.widened(KeyFormat::between(24, 64));
}

const LONG: &str = "Qz7Hk2Vx9Rm4Lt8Wb3Nc6Js1-8fK2pX9mWq4Ld7";

fn long() -> ApiKey<LongKanal> {
    ApiKey::parse(LONG).unwrap()
}

#[test]
fn a_longer_key_is_parsed_and_loaded() {
    let folder = Folder::new();
    let file = || SecretFile::new(folder.write("key", LONG));
    assert!(matches!(source::load(&file(), LongKanal::PROFILE), Ok(Loaded::Found(_))));
    assert!(source::load(&file(), Kanal::PROFILE).is_err(), "the issuer's own format is as narrow as before");
    let selected = Chain::<LongKanal>::new().with(file()).load().unwrap();
    assert!(*selected.key() == long());
    assert!(ApiKey::<LongKanal>::parse(KEY).is_ok() && ApiKey::<LongKanal>::parse(&KEY[1..]).is_err());
}

#[test]
fn one_issuer_has_one_fingerprint_in_both_formats() {
    let (own, wide) = (ApiKey::<Kanal>::parse(KEY).unwrap(), ApiKey::<LongKanal>::parse(KEY).unwrap());
    assert_eq!(own.fingerprint(), wide.fingerprint());
    assert_eq!(own.as_raw(), wide.as_raw());
    // What both formats accept passes from one to the other, and nothing else does.
    assert!(wide.into_raw().try_into_typed::<Kanal>().unwrap() == own);
    let error = long().into_raw().try_into_typed::<Kanal>().unwrap_err();
    assert!(error.to_string().contains("widen that format"), "{error}");
    assert!(error.into_key().try_into_typed::<LongKanal>().unwrap() == long());
    let error = long().into_raw().try_into_typed::<Katana>().unwrap_err();
    assert_eq!(error.to_string(), "this is a key of kanal, and a key of katana is needed");
}

#[test]
fn a_key_set_holds_and_writes_a_longer_key() {
    let keys = Keys::<LongKanal>::of_issuer();
    keys.adopt(&ApiKey::parse(KEY).unwrap()).unwrap();
    let before = keys.to_document();
    keys.stage(&long()).unwrap();
    let document = keys.to_document();
    let read = KeySet::from_document(LongKanal::PROFILE, document.expose_secret()).unwrap();
    assert!(read.pending().unwrap().key().matches(LONG.as_bytes()));
    // A program that did not widen reads what it can, and never a key that its own format refuses.
    assert!(KeySet::from_document(Kanal::PROFILE, before.expose_secret()).is_ok());
    assert!(KeySet::from_document(Kanal::PROFILE, document.expose_secret()).is_err());
}

#[test]
fn a_refresher_takes_up_a_longer_key() {
    let folder = Folder::new();
    let chain = Chain::<LongKanal>::new().with(SecretFile::new(folder.write("key", KEY)));
    let settings = RefreshSettings::new().with_cadence(Cadence::every(Duration::from_millis(100)));
    let refresher = Refresher::from_chain(chain, settings).unwrap();
    let handle: KeyHandle<LongKanal> = refresher.handle();
    let mut subscription = handle.subscribe();
    folder.write("new", LONG);
    std::fs::rename(folder.at("new"), folder.at("key")).unwrap();
    let now = subscription.wait(Duration::from_secs(60)).expect("it is polled").unwrap();
    assert!(now.current().matches(LONG.as_bytes()));
}

#[test]
fn a_server_that_widened_accepts_a_longer_key() {
    let keys = StaticKeys::new(long().into_raw());
    let authorize = |text: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {text}").parse().unwrap());
        keys.authorize(&headers, RequestedStore::NoStore).is_ok()
    };
    assert!(authorize(LONG) && !authorize(KEY));
    keys.replace(ApiKey::<Kanal>::parse(OTHER_KEY).unwrap().into_raw()).unwrap();
    assert!(authorize(OTHER_KEY) && authorize(LONG), "the current and the previous key");
}

#[test]
fn the_issuers_probe_sends_a_longer_key() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            let mut piece = [0; 512];
            let count = stream.read(&mut piece).unwrap();
            request.extend_from_slice(&piece[..count]);
        }
        stream
            .write_all(b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
        String::from_utf8(request).unwrap()
    });
    let probe = HttpProbe::by_invalid_customer(StoreId::new(1).unwrap(), []);
    let report = probe.with_guard(OriginGuard::for_loopback(origin).unwrap()).probe(long().as_raw());
    assert_ne!(report.verdict(), Verdict::KeyRefused);
    let request = server.join().unwrap();
    assert!(
        request.to_ascii_lowercase().contains(&format!("bearer {}", LONG.to_ascii_lowercase())),
        "{request}"
    );
    assert_eq!(HttpProbe::by_product_list().probe(long().as_raw()).verdict(), Verdict::Inconclusive);
}

#[test]
fn a_format_of_ones_own_may_allow_placeholders() {
    enum Lenient {}
    impl Issuer for Lenient {
        const PROFILE: &'static Profile =
            &Katana::PROFILE.widened(KeyFormat::between(16, 512).with_placeholders());
    }
    let folder = Folder::new();
    let chain = || Chain::<Lenient>::new().with(SecretFile::new(folder.write("key", "YOUR_API_KEY_HERE")));
    assert!(chain().load().is_ok());
    let strict = Chain::<Katana>::new().with(SecretFile::new(folder.at("key")));
    assert!(strict.load().is_err());
}

#[test]
fn fewer_characters_count_as_less_entropy() {
    const SHORT: &Profile = &Kanal::PROFILE.widened(KeyFormat::between(8, 24));
    assert_eq!(SHORT.entropy_bits(), 47);
    let key = RawKey::parse(SHORT, &KEY.as_bytes()[..8]).unwrap();
    assert_eq!(key.fingerprint(), None);
    let folder = Folder::new();
    // By chance, a short key looks so too often.
    let file = SecretFile::new(folder.write("key", "12345678"));
    assert!(matches!(source::load(&file, SHORT), Ok(Loaded::Found(_))));
}
