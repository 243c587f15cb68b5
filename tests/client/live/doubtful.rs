//! Answers that do not say who refused the key, and answers that take a refusal back.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};

use super::{GRACE, PATIENCE, Reloader, generation, in_time, live, unlimited};
use crate::client::{BearerLayer, OriginGuard, Sent};
use crate::emulator::{Emulator, Fault, FaultRule};
use crate::handle::{KeyHandle, RawHandle, Reload};
use crate::key::{Kanal, RawKey};

/// The emulator, and a handle whose active key is the emulator's.
struct Shop {
    emulator: Emulator,
    handle: KeyHandle<Kanal>,
    raw: RawHandle,
}

impl Shop {
    fn open() -> Self {
        let emulator = unlimited().start().unwrap();
        let (handle, raw) = live();
        raw.publish_next(emulator.key(), GRACE);
        Self { emulator, handle, raw }
    }

    /// The active key was deleted, and there is another.
    fn after_a_rotation() -> (Self, RawKey) {
        let shop = Self::open();
        let new = shop.emulator.create_key("new").unwrap().key().clone_key();
        shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
        (shop, new)
    }

    fn guard(&self) -> OriginGuard<Kanal> {
        OriginGuard::for_loopback(self.emulator.origin().clone()).unwrap()
    }

    fn uri(&self) -> String {
        format!("{}/api/v1/stores/123/orders", self.emulator.origin())
    }

    async fn send(&self, method: Method) -> (StatusCode, Sent) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let client = BearerLayer::new(self.handle.clone(), self.guard()).layer(client);
        let request = Request::builder().method(method).uri(self.uri()).body(Empty::new()).unwrap();
        let answer = in_time(client.oneshot(request)).await.unwrap();
        (answer.status(), *answer.extensions().get::<Sent>().unwrap())
    }

    fn statuses(&self) -> Vec<u16> {
        self.emulator.journal().iter().map(|entry| entry.status.unwrap_or(0)).collect()
    }

    fn answers(&self, fault: Fault) {
        self.emulator.add_fault(FaultRule::new(fault).nth(1)).unwrap();
    }
}

#[tokio::test]
async fn a_head_whose_key_was_replaced_is_sent_again() {
    let (shop, new) = Shop::after_a_rotation();
    let reloader = Reloader::that_finds(&shop.raw, new);
    let (status, sent) = shop.send(Method::HEAD).await;
    assert_eq!((status, sent.is_repeated(), sent.generation()), (StatusCode::OK, true, generation(2)));
    assert_eq!((shop.statuses(), reloader.attempts()), (vec![401, 200], 1));
    assert_eq!(shop.handle.refused(), None, "nobody said that it was the issuer");
}

#[tokio::test]
async fn a_get_whose_401_has_no_body_is_sent_again() {
    let shop = Shop::open();
    let new = shop.emulator.create_key("new").unwrap().key().clone_key();
    let _reloader = Reloader::that_finds(&shop.raw, new);
    shop.answers(Fault::status(401).with_body(""));
    let (status, sent) = shop.send(Method::GET).await;
    assert_eq!((status, sent.is_repeated(), sent.generation()), (StatusCode::OK, true, generation(2)));
    assert_eq!(shop.handle.refused(), None);
}

#[tokio::test]
async fn without_another_key_a_401_without_a_body_is_given_back() {
    let shop = Shop::open();
    let reloader = Reloader::that(&shop.raw, |_| Reload::Unchanged);
    shop.answers(Fault::status(401).with_body(""));
    let (status, sent) = shop.send(Method::GET).await;
    assert_eq!((status, sent.is_repeated(), reloader.attempts()), (StatusCode::UNAUTHORIZED, false, 1));
    assert_eq!((shop.statuses().len(), shop.handle.refused()), (1, None));
}

#[tokio::test]
async fn a_post_whose_401_has_no_body_is_sent_once() {
    let shop = Shop::open();
    let reloader = Reloader::that(&shop.raw, |_| Reload::Unchanged);
    shop.answers(Fault::status(401).with_body(""));
    let (status, sent) = shop.send(Method::POST).await;
    assert_eq!((status, sent.is_repeated(), reloader.attempts()), (StatusCode::UNAUTHORIZED, false, 0));
}

#[tokio::test]
async fn a_later_accepted_answer_takes_a_refusal_back() {
    let shop = Shop::open();
    let reloader = Reloader::that(&shop.raw, |_| Reload::Unchanged);
    shop.answers(Fault::status(401).with_body(r#"{ "error": "Invalid API key" }"#));
    assert_eq!(shop.send(Method::GET).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.handle.refused(), Some(generation(1)));
    let first = shop.raw.news_of_refusal().expect("it is refused");
    // A failure of another kind takes nothing back.
    shop.emulator.reset();
    shop.answers(Fault::status(503));
    assert_eq!(shop.send(Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.raw.news_of_refusal(), Some(first));
    assert_eq!(shop.send(Method::GET).await.0, StatusCode::OK);
    assert_eq!((shop.handle.refused(), shop.raw.news_of_refusal()), (None, None));
    // So the next refusal is news, and the refresher looks at once.
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    assert_eq!(shop.send(Method::GET).await.0, StatusCode::UNAUTHORIZED);
    assert!(shop.raw.news_of_refusal().is_some_and(|news| news != first));
    assert_eq!(reloader.attempts(), 2);
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_sends_a_head_again_and_takes_a_refusal_back() {
    use reqwest_middleware::ClientBuilder;

    use crate::client::{BearerMiddleware, guarded_client};

    let (shop, new) = Shop::after_a_rotation();
    let middleware = BearerMiddleware::new(shop.handle.clone(), shop.guard());
    let client = ClientBuilder::new(guarded_client().build().unwrap()).with(middleware).build();
    let reloader = Reloader::that_finds(&shop.raw, new);
    let answer = in_time(client.head(shop.uri()).send()).await.unwrap();
    let sent = *answer.extensions().get::<Sent>().unwrap();
    assert_eq!((answer.status().as_u16(), sent.is_repeated(), reloader.attempts()), (200, true, 1));
    assert_eq!((shop.statuses(), shop.handle.refused()), (vec![401, 200], None));
    shop.handle.report_refused(generation(2));
    let answer = in_time(client.get(shop.uri()).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.handle.refused()), (200, None));
    assert_eq!(shop.handle.reload_past(generation(1)).wait(PATIENCE), Some(Reload::Newer));
}
