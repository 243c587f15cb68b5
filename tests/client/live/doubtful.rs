//! Answers that do not say who refused the key, and answers that take a refusal back.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};

use keysheath::client::{BearerLayer, Sent};
use keysheath::emulator::Fault;

use super::{REFUSED, Shop, in_time, number, settings};

impl Shop {
    async fn ask(&self, method: Method) -> (StatusCode, Sent) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let client = BearerLayer::new(self.handle.clone(), self.guard()).layer(client);
        let request = Request::builder().method(method).uri(self.uri("orders")).body(Empty::new()).unwrap();
        let answer = in_time(client.oneshot(request)).await.unwrap();
        (answer.status(), answer.body().sent())
    }
}

#[tokio::test]
async fn a_head_whose_key_was_replaced_is_sent_again() {
    let shop = Shop::after_a_rotation();
    let (status, sent) = shop.ask(Method::HEAD).await;
    assert_eq!((status, sent.is_repeated(), number(sent.generation())), (StatusCode::OK, true, 2));
    assert_eq!((shop.statuses(), shop.reloads()), (vec![401, 200], 1));
    assert_eq!(shop.refused(), None, "nothing says that it was the issuer");
}

#[tokio::test]
async fn a_get_whose_401_has_no_body_is_sent_again() {
    let shop = Shop::open();
    shop.place.gives(shop.emulator.create_key("new").unwrap().key().expose_secret());
    shop.answers(Fault::status(401).with_body(""));
    let (status, sent) = shop.ask(Method::GET).await;
    assert_eq!((status, sent.is_repeated(), number(sent.generation())), (StatusCode::OK, true, 2));
    assert_eq!(shop.refused(), None);
}

#[tokio::test]
async fn without_another_key_a_401_without_a_body_is_given_back() {
    let shop = Shop::open();
    shop.answers(Fault::status(401).with_body(""));
    let (status, sent) = shop.ask(Method::GET).await;
    assert_eq!((status, sent.is_repeated(), shop.reloads()), (StatusCode::UNAUTHORIZED, false, 1));
    assert_eq!((shop.statuses().len(), shop.refused()), (1, None));
}

#[tokio::test]
async fn a_post_whose_401_has_no_body_is_sent_once() {
    let shop = Shop::open();
    shop.answers(Fault::status(401).with_body(""));
    let (status, sent) = shop.ask(Method::POST).await;
    assert_eq!((status, sent.is_repeated(), shop.reloads()), (StatusCode::UNAUTHORIZED, false, 0));
}

#[tokio::test]
async fn an_accepted_answer_withdraws_an_earlier_refusal() {
    // Within this interval the place is asked again only where a refusal is news.
    let shop = Shop::open_with(
        settings()
            .with_cadence(crate::support::refreshing::rarely().with_minimum_interval(Duration::from_secs(1))),
    );
    shop.answers(Fault::status(401).with_body(REFUSED));
    assert_eq!(shop.ask(Method::GET).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!((shop.refused(), shop.reloads()), (Some(1), 1));
    // A failure of another kind takes nothing back.
    shop.emulator.reset();
    shop.answers(Fault::status(503));
    assert_eq!(shop.ask(Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.refused(), Some(1));
    assert_eq!(shop.ask(Method::GET).await.0, StatusCode::OK);
    assert_eq!((shop.refused(), shop.reloads()), (None, 1));
    // So the next refusal is news, and the refresher looks at once.
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    assert_eq!(shop.ask(Method::GET).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!((shop.refused(), shop.reloads()), (Some(1), 2));
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_sends_a_head_again_and_takes_a_refusal_back() {
    let shop = Shop::after_a_rotation();
    let client = shop.reqwest();
    let answer = in_time(client.head(shop.uri("orders")).send()).await.unwrap();
    let sent = *answer.extensions().get::<Sent>().unwrap();
    assert_eq!((answer.status().as_u16(), sent.is_repeated(), shop.reloads()), (200, true, 1));
    assert_eq!((shop.statuses(), shop.refused()), (vec![401, 200], None));
    shop.handle.report_refused(sent.generation());
    assert_eq!(shop.refused(), Some(2));
    let answer = in_time(client.get(shop.uri("orders")).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.refused()), (200, None));
}
