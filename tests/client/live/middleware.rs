//! The same of the reqwest middleware.

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};

use super::{GRACE, PATIENCE, Reloader, generation, in_time, live, unlimited};
use crate::client::{BearerMiddleware, GuardError, OriginGuard, Repeatable, Sent, guarded_client};
use crate::emulator::{Emulator, Fault, FaultRule};
use crate::handle::{KeyHandle, NoActiveKey, Publication, RawHandle, Reload};
use crate::key::Kanal;

const REFUSED: &str = r#"{ "error": "Invalid API key" }"#;
const CUSTOMER: &str = r#"{ "phone": "+33612345678" }"#;

/// The emulator, a handle on its key, and a client.
struct Shop {
    emulator: Emulator,
    handle: KeyHandle<Kanal>,
    raw: RawHandle,
    client: ClientWithMiddleware,
}

impl Shop {
    fn open() -> Self {
        let emulator = unlimited().start().unwrap();
        let (handle, raw) = live();
        let guard = OriginGuard::for_loopback(emulator.origin().clone()).unwrap();
        let middleware = BearerMiddleware::new(handle.clone(), guard);
        let client = ClientBuilder::new(guarded_client().build().unwrap()).with(middleware).build();
        raw.publish_next(emulator.key(), GRACE);
        Self { emulator, handle, raw, client }
    }

    /// The key in force was deleted; the reloader finds the next.
    fn after_a_rotation() -> (Self, Reloader) {
        let shop = Self::open();
        let new = shop.emulator.create_key("new").unwrap();
        shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
        let reloader = Reloader::that_finds(&shop.raw, new.key().clone_key());
        (shop, reloader)
    }

    fn get(&self) -> reqwest_middleware::RequestBuilder {
        self.client.get(format!("{}/api/v1/stores/123/orders", self.emulator.origin()))
    }

    fn post(&self, body: reqwest::Body) -> reqwest_middleware::RequestBuilder {
        let uri = format!("{}/api/v1/stores/123/customers", self.emulator.origin());
        self.client.post(uri).header("content-type", "application/json").body(body)
    }

    fn statuses(&self) -> Vec<u16> {
        self.emulator.journal().iter().map(|entry| entry.status.unwrap_or(0)).collect()
    }
}

fn sent(response: &reqwest::Response) -> Sent {
    *response.extensions().get::<Sent>().expect("each response says what was sent")
}

#[tokio::test]
async fn a_request_whose_key_was_replaced_is_sent_again_with_the_new_one() {
    let (shop, reloader) = Shop::after_a_rotation();
    let answer = in_time(shop.get().send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (200, true));
    assert_eq!((sent(&answer).generation(), shop.statuses()), (generation(2), vec![401, 200]));
    assert!(answer.url().path().ends_with("/orders"));
    assert_eq!((shop.handle.refused(), reloader.attempts()), (Some(generation(1)), 1));
    let answer = in_time(shop.get().send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (200, false));
    assert!(shop.handle.is_drained(generation(1)));
}

#[tokio::test]
async fn a_post_is_repeated_only_if_it_is_marked_and_its_body_is_no_stream() {
    let (shop, _reloader) = Shop::after_a_rotation();
    let answer = in_time(shop.post(CUSTOMER.into()).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (401, false));
    assert_eq!(answer.text().await.unwrap(), REFUSED);
    assert_eq!(shop.handle.reload_past(generation(1)).wait(PATIENCE), Some(Reload::Newer));

    let (shop, _reloader) = Shop::after_a_rotation();
    let stream = reqwest::Body::wrap(http_body_util::Full::<bytes::Bytes>::from(CUSTOMER));
    let answer = in_time(shop.post(stream).with_extension(Repeatable).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.statuses()), (401, vec![401]));

    let (shop, _reloader) = Shop::after_a_rotation();
    let answer = in_time(shop.post(CUSTOMER.into()).with_extension(Repeatable).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.statuses()), (201, vec![401, 201]));
}

#[tokio::test]
async fn without_another_key_the_401_is_given_back_whole_and_with_the_previous_one_it_is_repeated() {
    let shop = Shop::open();
    let bad = shop.emulator.create_key("bad").unwrap();
    shop.emulator.delete_key(bad.record().id()).unwrap();
    shop.raw.publish_next(bad.key(), GRACE);
    let answer = in_time(shop.get().send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).generation()), (200, generation(1)));
    assert_eq!(shop.handle.load().unwrap().generation(), generation(2));

    let keys =
        Publication { generation: Some(generation(2)), begun: None, current: Ok(bad.key()), previous: None };
    shop.raw.publish(&keys);
    let answer = in_time(shop.get().send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (401, false));
    assert_eq!(answer.text().await.unwrap(), REFUSED);
    assert_eq!(shop.statuses(), [401, 200, 401]);
}

#[tokio::test]
async fn a_key_that_leaks_while_a_newer_one_is_waited_for_is_not_sent_again() {
    let shop = Shop::open();
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    let _reloader = Reloader::that(&shop.raw, |raw| {
        let leaked = Err(NoActiveKey::Compromised);
        raw.publish(&Publication {
            generation: Some(generation(2)),
            begun: None,
            current: leaked,
            previous: None,
        });
        Reload::Newer
    });
    let answer = in_time(shop.get().send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.statuses()), (401, vec![401]));
    let error = in_time(shop.get().send()).await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error}") };
    assert_eq!(error.downcast_ref(), Some(&NoActiveKey::Compromised));
    assert_eq!(shop.statuses(), [401], "nothing is sent while no key is in force");
}

#[tokio::test]
async fn no_other_answer_asks_for_a_reload_or_is_repeated() {
    let shop = Shop::open();
    shop.raw.attach();
    for (status, body) in
        [(401, "<html>Please sign in</html>"), (403, REFUSED), (404, REFUSED), (429, REFUSED), (503, "")]
    {
        shop.emulator.reset();
        shop.emulator.add_fault(FaultRule::new(Fault::status(status).with_body(body))).unwrap();
        let answer = in_time(shop.get().send()).await.unwrap();
        assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (status, false));
        assert_eq!(shop.statuses(), [status]);
        assert!(!shop.raw.is_asked() && shop.handle.refused().is_none(), "{status} {body}");
    }
}

#[tokio::test]
async fn the_guard_looks_at_the_repetition_too_and_its_failure_is_reqwests_own() {
    let shop = Shop::open();
    let new = shop.emulator.create_key("new").unwrap();
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    let _reloader = Reloader::that_finds(&shop.raw, new.key().clone_key());
    let error = shop
        .client
        .get(format!(
            "{}/api/v1/stores/123/orders?next={}",
            shop.emulator.origin(),
            new.key().expose_secret()
        ))
        .send()
        .await
        .unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error}") };
    assert_eq!(error.downcast_ref(), Some(&GuardError::KeyInUri));
    assert_eq!(shop.statuses(), [401]);

    let (shop, _reloader) = Shop::after_a_rotation();
    shop.emulator.add_fault(FaultRule::new(Fault::Reset).nth(2)).unwrap();
    assert!(matches!(in_time(shop.get().send()).await, Err(Error::Reqwest(_))));
    assert_eq!(shop.statuses(), [401, 0]);
}
