//! What an answer means for the key and for the request, with the reqwest middleware.

use keysheath::client::{BearerMiddleware, GuardError, Repeatable, Sent, guarded_client};
use keysheath::emulator::{Fault, FaultRule};
use keysheath::handle::{NoActiveKey, Reload, Stop};
use keysheath::key::Kanal;
use keysheath::refresh::Refresher;
use keysheath::rotation::{Rotation, RotationPolicy};
use keysheath::store::MemoryStore;
use reqwest::{Body, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, RequestBuilder};

use super::{REFUSED, Shop, in_time, number, settings};
use crate::support::refreshing::PATIENCE;

const CUSTOMER: &str = r#"{ "phone": "+33612345678" }"#;

impl Shop {
    pub(super) fn reqwest(&self) -> ClientWithMiddleware {
        let middleware = BearerMiddleware::new(self.handle.clone(), self.guard());
        ClientBuilder::new(guarded_client().build().unwrap()).with(middleware).build()
    }

    async fn send_get(&self) -> Result<Response, Error> {
        in_time(self.reqwest().get(self.uri("orders")).send()).await
    }

    fn customer(&self, body: Body) -> RequestBuilder {
        let request = self.reqwest().post(self.uri("customers"));
        request.header("content-type", "application/json").body(body)
    }
}

fn sent(response: &Response) -> Sent {
    *response.extensions().get::<Sent>().expect("each response says what was sent")
}

#[tokio::test]
async fn a_request_is_repeated_with_the_key_that_replaced_its_own() {
    let shop = Shop::after_a_rotation();
    let answer = shop.send_get().await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (200, true));
    assert_eq!((number(sent(&answer).generation()), shop.statuses()), (2, vec![401, 200]));
    assert!(answer.url().path().ends_with("/orders"));
    assert_eq!((shop.refused(), shop.reloads()), (Some(1), 1));
    let refused = shop.handle.refused().unwrap();
    let answer = shop.send_get().await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (200, false));
    assert!(shop.handle.is_drained(refused));
}

#[tokio::test]
async fn a_post_is_repeated_only_if_marked_and_not_a_stream() {
    let shop = Shop::after_a_rotation();
    let answer = in_time(shop.customer(CUSTOMER.into()).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (401, false));
    let refused = sent(&answer).generation();
    assert_eq!(answer.text().await.unwrap(), REFUSED);
    assert_eq!(shop.handle.wait_newer_than(refused, PATIENCE), Some(Reload::Newer));

    let shop = Shop::after_a_rotation();
    let stream = Body::wrap(http_body_util::Full::<bytes::Bytes>::from(CUSTOMER));
    let answer = in_time(shop.customer(stream).with_extension(Repeatable).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.statuses()), (401, vec![401]));

    let shop = Shop::after_a_rotation();
    let answer = in_time(shop.customer(CUSTOMER.into()).with_extension(Repeatable).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.statuses()), (201, vec![401, 201]));
}

#[tokio::test]
async fn a_401_is_repeated_with_the_previous_key_or_returned_whole() {
    let shop = Shop::with_a_bad_active_key(settings());
    let answer = shop.send_get().await.unwrap();
    assert_eq!((answer.status().as_u16(), number(sent(&answer).generation())), (200, 1));
    assert_eq!(shop.active(), 2);

    let previous = shop.emulator.key().clone_key().try_into_typed().unwrap();
    assert_eq!(shop.handle.stop(&previous), Stop::NotActive);
    let answer = shop.send_get().await.unwrap();
    assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (401, false));
    assert_eq!(answer.text().await.unwrap(), REFUSED);
    assert_eq!(shop.statuses(), [401, 200, 401]);
}

#[tokio::test]
async fn a_key_that_leaks_while_a_request_waits_is_not_sent_again() {
    let mut shop = Shop::open();
    let store = MemoryStore::new();
    // Another process, which this one hears of when it reloads.
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
    rotation.adopt(&shop.emulator.key().clone_key().try_into_typed().unwrap()).unwrap();
    let refresher = Refresher::from_store(store, settings()).unwrap();
    shop.handle = refresher.handle();
    rotation.compromise(shop.emulator.key().fingerprint().unwrap()).unwrap();
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    let answer = shop.send_get().await.unwrap();
    assert_eq!((answer.status().as_u16(), shop.statuses()), (401, vec![401]));
    let error = shop.send_get().await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error}") };
    assert_eq!(error.downcast_ref(), Some(&NoActiveKey::Compromised));
    assert_eq!(shop.statuses(), [401], "nothing is sent while no key is active");
}

#[tokio::test]
async fn no_other_answer_asks_for_a_reload_or_is_repeated() {
    let shop = Shop::open();
    for (status, body) in
        [(401, "<html>Please sign in</html>"), (403, REFUSED), (404, REFUSED), (429, REFUSED), (503, "")]
    {
        shop.emulator.reset();
        shop.emulator.add_fault(FaultRule::new(Fault::status(status).with_body(body))).unwrap();
        let answer = shop.send_get().await.unwrap();
        assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (status, false));
        assert_eq!(shop.statuses(), [status]);
        assert_eq!((shop.reloads(), shop.refused()), (0, None), "{status} {body}");
    }
}

#[tokio::test]
async fn the_guard_checks_retries_and_their_failure_is_reqwests_own() {
    let shop = Shop::open();
    let new = shop.emulator.create_key("new").unwrap();
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    shop.place.gives(new.key().expose_secret());
    let uri = shop.uri(&format!("orders?next={}", new.key().expose_secret()));
    let error = in_time(shop.reqwest().get(uri).send()).await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error}") };
    assert_eq!(error.downcast_ref(), Some(&GuardError::KeyInUri));
    assert_eq!(shop.statuses(), [401]);

    let shop = Shop::after_a_rotation();
    shop.emulator.add_fault(FaultRule::new(Fault::Reset).with_start(2)).unwrap();
    assert!(matches!(shop.send_get().await, Err(Error::Reqwest(_))));
    assert_eq!(shop.statuses(), [401, 0]);
}
