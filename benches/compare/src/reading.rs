//! Reading the key or token that is valid now, which another thread may replace.

use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use http::HeaderValue;
use keysheath::chain::Chain;
use keysheath::client::BearerHeader;
use keysheath::handle::KeyHandle;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::source::SecretFile;
use oauth2::basic::{BasicTokenResponse, BasicTokenType};
use oauth2::{AccessToken, EmptyExtraTokenFields, TokenResponse as _};
use secrecy::{ExposeSecret as _, SecretString};

use super::{KEY, Kanal, answer, row, signing_in};

pub(super) fn rows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("kanal");
    std::fs::write(&path, KEY).expect("a file");
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
    let refresher = Refresher::from_chain(chain, RefreshSettings::new()).expect("the key is there");
    locks(&refresher.handle());
    credentials(&refresher.handle());
    token();
}

fn locks(handle: &KeyHandle<Kanal>) {
    let ours = || black_box(handle).load().map(|snapshot| snapshot.current().expose_secret().len());
    let what = "`KeyHandle::load` of a live handle, its text";
    let lock = RwLock::new(SecretString::from(KEY));
    let cloned = || {
        let secret = black_box(&lock).read().expect("no panic").clone();
        secret.expose_secret().len()
    };
    row(what, ours, "`RwLock<SecretString>`: read, clone, its text", cloned);
    let shared = RwLock::new(Arc::new(SecretString::from(KEY)));
    let counted = || {
        let secret = Arc::clone(&black_box(&shared).read().expect("no panic"));
        secret.expose_secret().len()
    };
    row(what, ours, "`RwLock<Arc<SecretString>>`: read, clone the `Arc`, its text", counted);
}

fn credentials(handle: &KeyHandle<Kanal>) {
    let ours = || black_box(handle).load().map(|snapshot| snapshot.current().expose_secret().len());
    let what = "`KeyHandle::load` of a live handle, its text";
    let provider = SharedCredentialsProvider::new(CachedChain::new());
    let read = || {
        let credentials = answer(black_box(&provider).provide_credentials()).expect("there are some");
        credentials.secret_access_key().len()
    };
    // The cache is filled here.
    assert_eq!(read(), KEY.len());
    row(
        what,
        ours,
        "`aws-credential-types`: a chain of two behind a cache, by hand; the secret's text",
        read,
    );
}

/// A chain of providers, the first of which has nothing, behind a cache that looks at the expiry.
#[derive(Debug)]
struct CachedChain {
    chain: [SharedCredentialsProvider; 2],
    cache: RwLock<Option<Credentials>>,
}

/// A provider without credentials.
#[derive(Debug)]
struct Nothing;

impl ProvideCredentials for Nothing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("there are none")))
    }
}

impl CachedChain {
    fn new() -> Self {
        let expiry = SystemTime::now() + Duration::from_secs(3600);
        let credentials = Credentials::new("id", KEY, None, Some(expiry), "compare");
        let chain = [SharedCredentialsProvider::new(Nothing), SharedCredentialsProvider::new(credentials)];
        Self { chain, cache: RwLock::new(None) }
    }

    fn cached(&self) -> Option<Credentials> {
        let cache = self.cache.read().expect("no panic");
        cache.as_ref().filter(|there| there.expiry().is_none_or(|end| end > SystemTime::now())).cloned()
    }
}

impl ProvideCredentials for CachedChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        if let Some(cached) = self.cached() {
            return future::ProvideCredentials::ready(Ok(cached));
        }
        future::ProvideCredentials::new(async {
            let mut result = Err(CredentialsError::not_loaded("no provider"));
            for provider in &self.chain {
                result = provider.provide_credentials().await;
                if let Ok(credentials) = &result {
                    *self.cache.write().expect("no panic") = Some(credentials.clone());
                    break;
                }
            }
            result
        })
    }
}

/// The header's value for the access token that is valid now. The refresh, which both have, is not timed.
fn token() {
    let keeper = signing_in::keeper();
    let handle = keeper.handle();
    let ours = || {
        let snapshot = black_box(&handle).load().expect("a token");
        BearerHeader::for_snapshot(&snapshot).value().len()
    };
    let token = AccessToken::new(signing_in::TOKEN.to_owned());
    let response = BasicTokenResponse::new(token, BasicTokenType::Bearer, EmptyExtraTokenFields {});
    let until = Instant::now() + Duration::from_secs(3600);
    let lock = RwLock::new((response, until));
    let theirs = || {
        let token = {
            let there = black_box(&lock).read().expect("no panic");
            assert!(there.1 > Instant::now(), "it would be refreshed here");
            there.0.access_token().clone()
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret())).expect("a value");
        value.set_sensitive(true);
        value.len()
    };
    let what = "the token of a `TokenKeeper`, as a header's value";
    row(what, ours, "`oauth2` behind a lock, its expiry, its clone, as a header's value", theirs);
}
