//! A client under load: threads that send one request after another and count the answers.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keysheath::client::{BearerError, BearerLayer, OriginGuard, Sent};
use keysheath::handle::KeyHandle;
use keysheath::key::{Kanal, StoreId};
use tower_layer::Layer as _;
use tower_service::Service as _;

/// The number of requests of one thread that are under way at once.
const AT_ONCE: usize = 4;

/// The pause of a sender that has no key.
const PAUSE: Duration = Duration::from_millis(2);

/// The sending threads. They stop when it is dropped.
pub(super) struct Load {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    unsent: AtomicU64,
    /// The number of requests that each sender has ended.
    ended: Mutex<Vec<Arc<AtomicU64>>>,
    first_failure: Mutex<Option<String>>,
}

impl Load {
    /// Starts a thread for each handle. All read the orders of one store, as a sync service does.
    pub fn start(
        guard: &OriginGuard<Kanal>,
        store: StoreId,
        handles: impl IntoIterator<Item = KeyHandle<Kanal>>,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        let uri = format!("{}/api/v1/stores/{store}/orders", guard.origin());
        let threads = handles
            .into_iter()
            .map(|handle| {
                let (counts, layer, uri) =
                    (Arc::clone(&counts), BearerLayer::new(handle, guard.clone()), uri.clone());
                thread::spawn(move || send(&layer, &uri, &counts))
            })
            .collect();
        Self { counts, threads }
    }

    /// Returns the number of requests that were answered with a 2xx.
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Returns the number of requests that failed: another answer than a 2xx, or none.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Returns the number of requests that were not sent, because no key was active.
    pub fn unsent(&self) -> u64 {
        self.counts.unsent.load(Ordering::Relaxed)
    }

    /// Returns the number of requests that each sender has ended. A sender has one request under way, so once
    /// each number has grown by two, no request is under way that was begun before.
    #[allow(dead_code, reason = "the test of P8 uses it")]
    pub fn ended(&self) -> Vec<u64> {
        let ended = self.counts.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Returns the first failure.
    pub fn first_failure(&self) -> Option<String> {
        self.counts.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was printed to standard error, and its thread counts no more answers.
            let _ = thread.join();
        }
    }
}

impl Counts {
    fn fail(&self, why: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}

/// Describes a refused request: its status, and the generation of its key.
fn refusal(status: StatusCode, sent: Sent) -> String {
    let times = if sent.is_repeated() { "again" } else { "once" };
    format!("an answer {status} to generation {}, sent {times}", sent.generation())
}

fn send(layer: &BearerLayer<Kanal>, uri: &str, counts: &Arc<Counts>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return counts.fail(format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        let client = layer.layer(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());
        let senders: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (mut client, uri, counts) = (client.clone(), uri.to_owned(), Arc::clone(counts));
                let ended = Arc::new(AtomicU64::new(0));
                counts.ended.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&ended));
                tokio::spawn(async move {
                    while !counts.stop.load(Ordering::Relaxed) {
                        let Ok(request) = Request::get(&uri).body(Empty::new()) else {
                            return counts.fail("the URI is invalid".to_owned());
                        };
                        let answer = match poll_fn(|context| client.poll_ready(context)).await {
                            Ok(()) => client.call(request).await,
                            Err(error) => Err(error),
                        };
                        match answer {
                            Ok(response) if response.status().is_success() => {
                                match response.into_body().collect().await {
                                    Ok(_) => drop(counts.answered.fetch_add(1, Ordering::Relaxed)),
                                    Err(_) => counts.fail("an answer was incomplete".to_owned()),
                                }
                            }
                            Ok(response) => counts.fail(refusal(response.status(), response.body().sent())),
                            Err(BearerError::NoActiveKey(_)) => {
                                counts.unsent.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(PAUSE).await;
                            }
                            Err(error) => counts.fail(error.to_string()),
                        }
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for sender in senders {
            if sender.await.is_err() {
                counts.fail("a sender panicked".to_owned());
            }
        }
    });
}
