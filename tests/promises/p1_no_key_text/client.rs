//! The layers on a handle whose key changes. What they show while a request is repeated is looked at where a
//! test can publish a key, in `tests/units/client/live.rs`.

use http::Response;
use http_body_util::Full;
use keysheath::client::{BearerError, BearerLayer, NotRepeating, Repeating};
use tower::{Layer as _, Service as _, service_fn};

use super::*;

/// An issuer that refuses every key, and echoes it.
async fn refuse(request: Request<()>) -> std::io::Result<Response<Full<bytes::Bytes>>> {
    let key = request.headers()["authorization"].as_bytes()["Bearer ".len()..].to_vec();
    let body = [br#"{ "error": "Invalid API key", "key": ""#, &key[..], br#"" }"#].concat();
    Ok(Response::builder().status(401).body(body.into()).unwrap())
}

fn get() -> Request<()> {
    Request::get("https://api.getkanal.com/").body(()).unwrap()
}

#[tokio::test]
async fn a_layer_that_does_not_repeat_shows_nothing() {
    let handle = keysheath::handle::KeyHandle::fixed(kanal());
    let layer: BearerLayer<Kanal, NotRepeating> =
        BearerLayer::new(handle.clone(), OriginGuard::new()).without_repeating();
    assert_debug_silent("BearerLayer", &layer);
    let client = service_fn(refuse);
    assert_debug_silent("NotRepeating", &NotRepeating);
    assert_debug_silent("Repeating", &Repeating);
    let mut client = layer.layer(client);
    assert_debug_silent("BearerService", &client);
    let future = client.call(get());
    assert_debug_silent("BearerFuture", &future);
    let response = future.await.unwrap();
    assert_debug_silent("a response", &response);
    assert!(!response.body().sent().is_repeated());
    assert!(handle.refused().is_some());
}

#[cfg(feature = "rotation")]
#[tokio::test]
async fn a_handle_without_a_key_sends_and_shows_nothing() {
    use keysheath::handle::NoActiveKey;
    use keysheath::rotation::{Rotation, RotationPolicy};
    use keysheath::store::MemoryStore;

    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new()).unwrap();
    let handle = rotation.handle();
    assert_debug_silent("KeyHandle", &handle);
    let mut client = BearerLayer::new(handle, OriginGuard::new()).layer(service_fn(refuse));
    assert_debug_silent("BearerService", &client);
    // Not even of a request that has the key where it does not belong.
    let request = Request::get(format!("https://api.getkanal.com/?{KANAL}")).body(()).unwrap();
    let future = client.call(request);
    assert_debug_silent("BearerFuture", &future);
    let error = future.await.unwrap_err();
    assert!(matches!(error, BearerError::NoActiveKey(NoActiveKey::NoKey)), "{error}");
    assert_error_silent("BearerError of a closed handle", &error);
    assert!(error.into_inner().is_none());
    let leaked = BearerError::NoActiveKey(NoActiveKey::Compromised);
    assert_error_silent("BearerError of a leaked key", &leaked);
    assert_eq!(format!("{leaked:?}"), "NoActiveKey(Compromised)");
    assert_eq!(leaked.to_string(), NoActiveKey::Compromised.to_string());
}

#[cfg(feature = "rotation")]
#[test]
fn what_is_waited_for_shows_nothing() {
    use keysheath::handle::{KeyHandle, Reload, Stop, Subscription};

    let handle = KeyHandle::fixed(kanal());
    let generation = handle.load().unwrap().generation();
    let outcome: Reload = handle.wait_newer_than(generation, Duration::from_secs(60)).unwrap();
    assert_value_silent("Reload", &outcome);
    let stop: Stop = handle.stop(&kanal());
    assert_debug_silent("Stop", &stop);
    let subscription: Subscription<Kanal> = handle.subscribe();
    assert_debug_silent("Subscription", &subscription);
}
