//! An issuer of one's own, as the crate's documentation writes it in ten lines: a server that requires its
//! keys, and clients that understand what that server answers.

use std::sync::Arc;

use axum::{Router, routing::get};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keysheath::client::{BearerLayer, OriginGuard};
use keysheath::failure::{Answer, Meaning, Obstacle, Row};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Issuer, Kanal, Katana, KeyFormat, Origin, Profile, RawKey, StoreId};
use keysheath::probe::{Finding, Probe, Report, Verdict};
use keysheath::registry::{KeyRegistry, Refusal, RequireKeyLayer, TeamId};
use tower::{Layer as _, ServiceExt as _};

struct Acme;

impl Issuer for Acme {
    const PROFILE: &'static Profile = &Profile::new(
        "acme",
        "ACME_API_KEY",
        Origin::https("api.acme.example"),
        KeyFormat::between(20, 64),
        128,
    );
}

/// Asks for one store by `ureq`, and lets the profile say what the answer means.
struct AcmeProbe {
    url: String,
}

impl Probe for AcmeProbe {
    fn probe(&self, key: &RawKey) -> Report {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().into();
        let sent =
            agent.get(&self.url).header("authorization", format!("Bearer {}", key.expose_secret())).call();
        let answer: Result<Answer, Obstacle> = sent.map_err(|_| Obstacle::Broken).map(|mut response| {
            let status = response.status().as_u16();
            let body = response.body_mut().read_to_vec().unwrap();
            Acme::PROFILE.classify(status, None, &body)
        });
        Report::new(Finding::new(answer))
    }
}

/// What the client's layer takes an answer for, and whether it reports the key as refused.
async fn ask(origin: &Origin, key: &RawKey, store: u64) -> (u16, Meaning, bool) {
    let handle = KeyHandle::<Acme>::fixed(ApiKey::parse(key.expose_secret()).unwrap());
    let guard = OriginGuard::for_loopback(origin.clone()).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request =
        Request::get(format!("{origin}/stores/{store}/orders")).body(Empty::<Bytes>::new()).unwrap();
    let response = BearerLayer::new(handle.clone(), guard).layer(client).oneshot(request).await.unwrap();
    let meaning = response.body().sent().answer().meaning();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    (status, meaning, handle.refused().is_some())
}

#[test]
fn an_issuer_of_ten_lines_understands_its_own_refusals() {
    let registry = Arc::new(KeyRegistry::in_memory(Acme::PROFILE).unwrap());
    for (store, team, is_paused) in [(1, 1, false), (2, 2, false), (3, 1, true)] {
        let store = StoreId::new(store).unwrap();
        registry.put_store(store, TeamId::new(team)).unwrap();
        if is_paused {
            registry.pause_store(store).unwrap();
        }
    }
    let new = |name| registry.create_key(TeamId::new(1), name).unwrap();
    let (good, deleted) = (new("good"), new("deleted"));
    registry.delete_key(deleted.record().id()).unwrap();
    let app: Router = Router::new()
        .route("/stores/{store}/orders", get(async || "orders"))
        .route_layer(RequireKeyLayer::for_stores(Arc::clone(&registry)));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    runtime.spawn(async { axum::serve(listener, app).await });

    for (key, store, status, meaning, verdict) in [
        (good.key(), 1, 200, Meaning::Accepted, Verdict::Accepted),
        (deleted.key(), 1, 401, Meaning::KeyRefused, Verdict::KeyRefused),
        (good.key(), 2, 403, Meaning::StoreForbidden, Verdict::StoreRefused),
        (good.key(), 3, 404, Meaning::StoreNotFound, Verdict::StoreRefused),
        (good.key(), 9, 404, Meaning::StoreNotFound, Verdict::StoreRefused),
    ] {
        let is_refused = meaning == Meaning::KeyRefused;
        assert_eq!(
            runtime.block_on(ask(&origin, key, store)),
            (status, meaning, is_refused),
            "store {store}"
        );
        let probe = AcmeProbe { url: format!("{origin}/stores/{store}/orders") };
        assert_eq!(probe.probe(key).verdict(), verdict, "store {store}");
    }
}

#[test]
fn clients_read_each_answer_of_the_layer_as_the_server_means_it() {
    const CODE: &[Row] = &[Row::new(401, "/code", Some("bad_key"), Meaning::KeyRefused)];
    const WITH_CODE: &Profile =
        &Profile::new("code", "CODE_KEY", Origin::https("code.example"), KeyFormat::exactly(24), 128)
            .with_failures(CODE);
    for profile in [Acme::PROFILE, Kanal::PROFILE, Katana::PROFILE, WITH_CODE] {
        let tells_missing = profile.failures().iter().any(|row| row.meaning() == Meaning::KeyMissing);
        for meaning in
            [Meaning::KeyMissing, Meaning::KeyRefused, Meaning::StoreForbidden, Meaning::StoreNotFound]
        {
            let refusal = Refusal::new(profile, meaning);
            let expected =
                if tells_missing || meaning != Meaning::KeyMissing { meaning } else { Meaning::KeyRefused };
            let found = profile.classify(refusal.status(), None, refusal.body().as_bytes());
            assert_eq!(found.meaning(), expected, "{profile:?}: {}", refusal.body());
        }
    }
}

#[test]
fn only_an_issuers_own_row_refuses_its_key() {
    const NONE: &Profile =
        &Profile::new("none", "NONE_KEY", Origin::https("none.example"), KeyFormat::exactly(24), 128)
            .with_failures(&[]);
    let invalid = br#"{ "error": "Invalid API key" }"#;
    assert_eq!(NONE.classify(401, None, invalid).meaning(), Meaning::Inconclusive);
    assert_eq!(Katana::PROFILE.classify(401, None, invalid).meaning(), Meaning::Inconclusive);
    for body in [
        &b""[..],
        b"<html>Sign in</html>",
        br#"{"error":"Unauthorized"}"#,
        br#"{"message":"Invalid API key"}"#,
    ] {
        assert_eq!(Acme::PROFILE.classify(401, None, body).meaning(), Meaning::Inconclusive);
    }
    assert_eq!(Acme::PROFILE.classify(403, None, invalid).meaning(), Meaning::Inconclusive);
}
