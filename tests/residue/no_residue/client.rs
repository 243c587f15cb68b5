//! Headers, requests and the layers.

use http::{Request, Response};
use keysheath::client::{BearerHeader, BearerLayer, GuardError, OriginGuard, RetryLayer};
use keysheath::handle::KeyHandle;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;

#[test]
fn a_header_is_built_cloned_and_dropped() {
    leaves_nothing("client::a_header_is_built_cloned_and_dropped", &[], || {
        let header = BearerHeader::new(&kanal(KEY));
        let clone = header.clone();
        let value = clone.value();
        drop(format!("{header:?} {value:?}"));
        drop((header, clone));
        assert!(value.as_bytes().ends_with(KEY.as_bytes()));
    });
}

#[test]
fn a_request_is_authorized_and_dropped() {
    leaves_nothing("client::a_request_is_authorized_and_dropped", &[], || {
        let header = BearerHeader::new(&kanal(KEY));
        let mut request = Request::get("https://api.getkanal.com/api/v1/stores/1").body(()).unwrap();
        OriginGuard::new().authorize(&mut request, &header).unwrap();
        drop(header);
        drop(format!("{request:?}"));
        drop(request.clone());
    });
}

#[test]
fn a_request_to_another_origin_is_refused() {
    leaves_nothing("client::a_request_to_another_origin_is_refused", &[], || {
        let header = BearerHeader::new(&kanal(KEY));
        let mut request = Request::get("https://api.katanamrp.com/").body(()).unwrap();
        let error = OriginGuard::new().authorize(&mut request, &header).unwrap_err();
        drop(format!("{error} {error:?}"));
    });
}

#[test]
fn a_request_with_the_key_in_its_uri_is_refused() {
    leaves_nothing("client::a_request_with_the_key_in_its_uri_is_refused", &[], || {
        let header = BearerHeader::new(&kanal(KEY));
        // The URI is static, because what a caller puts into one is the caller's.
        for (uri, in_user_info) in [
            ("https://api.getkanal.com/?key=Qz7Hk2Vx9Rm4Lt8Wb3Nc6Js1", false),
            ("https://api.getkanal.com/%51z7Hk2Vx9Rm4Lt8Wb3Nc6Js1/x", false),
            ("https://Qz7Hk2Vx9Rm4Lt8Wb3Nc6Js1@api.getkanal.com/", true),
        ] {
            let mut request = Request::new(());
            *request.uri_mut() = http::Uri::from_static(uri);
            let error = OriginGuard::new().authorize(&mut request, &header).unwrap_err();
            assert_eq!(error, if in_user_info { GuardError::UserInfo } else { GuardError::KeyInUri });
            drop(format!("{error} {error:?}"));
        }
    });
}

#[test]
fn a_layer_sends_repeats_is_refused_and_is_dropped() {
    leaves_nothing("client::a_layer_sends_repeats_is_refused_and_is_dropped", &[], || {
        let handle = KeyHandle::fixed(kanal(KEY));
        let mut status = 503;
        let issuer = service_fn(move |request: Request<()>| {
            assert!(request.headers()["authorization"].as_bytes().ends_with(KEY.as_bytes()));
            drop(format!("{request:?}"));
            let body = String::from(r#"{ "error": "Invalid API key" }"#);
            let answer = Response::builder().status(std::mem::replace(&mut status, 401)).body(body);
            std::future::ready(answer)
        });
        let bearer = BearerLayer::new(handle.clone(), OriginGuard::new()).layer(issuer);
        let client = RetryLayer::new(|_| std::future::ready(())).layer(bearer);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for uri in ["https://api.getkanal.com/api/v1/stores/1", "https://api.katanamrp.com/"] {
            let answer = runtime.block_on(client.clone().oneshot(Request::get(uri).body(()).unwrap()));
            drop(format!("{answer:?} {handle:?} {client:?}"));
        }
        assert!(handle.refused().is_some());
    });
}
