//! An untrusted document is read as an app's grant, and a keeper that is started on it sees the same.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keysheath::key::KatanaApp;
use keysheath::oauth::{GrantError, GrantState, KeeperSettings, OAuthApp, TokenKeeper};
use keysheath::source::SecretFile;
use keysheath::store::{DocumentContent, DocumentStore as _, MemoryStore};
use serde_json::Value;

/// The largest document, in bytes.
const MAX_DOCUMENT: usize = 32_768;

/// The longest lifetime that a document may name: 2^36 ms.
const LONGEST: Duration = Duration::from_millis(1 << 36);

/// Its client secret is not there, so that nothing is ever sent.
static APP: LazyLock<OAuthApp<KatanaApp>> = LazyLock::new(|| {
    let nowhere = SecretFile::new(Path::new("/nonexistent/keysheath-client-secret"));
    OAuthApp::katana("an-app", nowhere).expect("a client id")
});

pub fn grant(data: &[u8]) {
    let store = MemoryStore::new();
    if store.write(&DocumentContent::from(data.to_vec()), None).is_err() {
        assert!(data.len() > MAX_DOCUMENT);
        return;
    }
    let view = match APP.grant_in(&store) {
        Ok(view) => view,
        Err(error) => {
            assert_ne!(error, GrantError::None, "something is there");
            assert!(!format!("{error} {error:?}").contains("QUFB"), "a token is shown");
            let keeper = TokenKeeper::start(APP.clone(), store, KeeperSettings::new());
            assert!(keeper.is_err(), "a keeper takes what is no grant");
            return;
        }
    };
    // What another reader of JSON finds in it.
    let there: Value = serde_json::from_slice(data).expect("a grant is JSON");
    assert_eq!(there["keysheath"], "grant");
    assert!(there["form"] == 1 || there["form"] == 2, "an unknown form");
    let has_sign_in = ["lineage", "id", "serial"].iter().all(|name| there[*name].is_u64());
    assert!(has_sign_in || there["form"] == 1, "form 2 names its sign-in");
    assert_eq!((&there["issuer"], &there["client"]), (&"katana-app".into(), &"an-app".into()));
    assert_eq!(there["server"], "https://login.katanamrp.com/oauth/token", "another server's grant");
    assert_eq!(there["number"].to_string(), view.generation().to_string());
    assert_eq!(there["refused"], view.state() == GrantState::Refused);
    assert_eq!(there["lease"].is_null(), !view.has_lease());
    let lifetime = Duration::from_millis(there["lifetime"].as_u64().expect("a lifetime"));
    assert!(lifetime <= LONGEST);
    assert_eq!(
        view.remaining_at(SystemTime::UNIX_EPOCH),
        lifetime.min(expires(&there)),
        "it lives for another time"
    );
    let keeper = TokenKeeper::start(APP.clone(), store, KeeperSettings::new()).expect("it is a grant");
    let now = keeper.handle().load().expect("an access token");
    assert_eq!(now.generation(), view.generation());
    let access = STANDARD.decode(there["access"].as_str().expect("a text")).expect("it is base64");
    assert!(now.current().matches(&access), "another token is active than the one that stands there");
}

fn expires(there: &Value) -> Duration {
    Duration::from_millis(there["expires"].as_u64().expect("a moment"))
}
