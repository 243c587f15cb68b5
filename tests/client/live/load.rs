//! Under load: several threads send requests while keys are replaced and deleted, and none fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};

use keysheath::client::BearerLayer;

use super::{Shop, in_time, number};
use crate::support::refreshing::PATIENCE;

const ROTATIONS: u32 = 30;
const CLIENTS: usize = 8;

/// What the clients count.
#[derive(Default)]
struct Counts {
    answered: AtomicU32,
    repeated: AtomicU32,
    failed: AtomicU32,
    ended: AtomicBool,
}

#[test]
fn no_request_fails_while_keys_are_replaced_and_deleted() {
    let shop = Shop::open();
    let (emulator, handle) = (&shop.emulator, &shop.handle);
    let counts = Arc::<Counts>::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let layer = BearerLayer::new(handle.clone(), shop.guard());
    let uri = shop.uri("orders");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let method = if number % 2 == 0 { Method::GET } else { Method::HEAD };
            let (client, counts, uri) = (layer.layer(client.clone()), Arc::clone(&counts), uri.clone());
            runtime.spawn(async move {
                while !counts.ended.load(Ordering::SeqCst) {
                    let request = Request::builder().method(&method).uri(&uri).body(Empty::new()).unwrap();
                    let answer = in_time(client.clone().oneshot(request)).await.unwrap();
                    let repeated = answer.body().sent().is_repeated();
                    counts.repeated.fetch_add(u32::from(repeated), Ordering::SeqCst);
                    counts.failed.fetch_add(u32::from(answer.status() != 200), Ordering::SeqCst);
                    answer.into_body().collect().await.unwrap();
                    counts.answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();

    let mut id = emulator.key_id();
    for rotation in 0..ROTATIONS {
        let before = counts.answered.load(Ordering::SeqCst);
        let until_some_are_answered = || {
            while counts.answered.load(Ordering::SeqCst) < before + 50 {
                std::thread::yield_now();
            }
        };
        let new = emulator.create_key("next").unwrap();
        let old = handle.load().unwrap().generation();
        match rotation % 4 {
            // The old key is deleted under the requests that are on their way with it.
            0 => {
                shop.publish(new.key());
                emulator.delete_key(id).unwrap();
            }
            // The old key is deleted before anybody here has seen the new one.
            2 => {
                shop.place.gives(new.key().expose_secret());
                emulator.delete_key(id).unwrap();
                while handle.load().unwrap().generation() == old {
                    std::thread::yield_now();
                }
            }
            // As it should be, so that whatever was repeated before comes to its end.
            _ => {
                shop.publish(new.key());
                assert!(handle.wait_drained(old, PATIENCE));
                emulator.delete_key(id).unwrap();
            }
        }
        id = new.record().id();
        until_some_are_answered();
        assert_eq!(number(handle.load().unwrap().generation()), u64::from(rotation) + 2);
    }
    counts.ended.store(true, Ordering::SeqCst);
    for client in clients {
        runtime.block_on(client).unwrap();
    }
    let count = |counter: &AtomicU32| counter.load(Ordering::SeqCst);
    assert_eq!(count(&counts.failed), 0, "of {}", count(&counts.answered));
    assert!(count(&counts.repeated) >= ROTATIONS / 4, "{} were repeated", count(&counts.repeated));
    assert!(shop.reloads() >= ROTATIONS as usize / 4);
}
