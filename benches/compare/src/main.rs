//! What keysheath costs beside what a user would take instead, and beside the limit: an array compare, an
//! allocation, a hash, a cache miss.
//!
//! ```sh
//! cargo run --release --manifest-path benches/compare/Cargo.toml
//! ```
//!
//! One table, of one run. Batches of the two sides take turns, and the smallest time of each counts. Both do
//! the work that the row names, and neither side of a row uses the network.
//!
//! # What differs all the same
//! - Every key of keysheath is checked for its issuer's format, is wiped when it is dropped, is compared in
//!   constant time, and is never printed. Of the others, `secrecy` wipes and does not print,
//!   `aws-credential-types` does so for the secret alone, `subtle` and `prefixed-api-key` compare in constant
//!   time. `String`, `HeaderValue`, `oauth2`'s tokens, `dotenvy`'s and reqwest's buffers are freed as they
//!   are.
//! - `SecretFile` refuses a file that another user can read or write, or that is too large, and reads it on a
//!   thread with a deadline, so that a network file system that hangs stops nothing. `fs::read` does not.
//! - `DotenvFile` reads one variable, takes a line that it does not understand for an error, and checks the
//!   file as `SecretFile` does. `dotenvy` reads all variables.
//! - `BearerLayer` sends the key to its issuer's origin only, holds the generation that it sends, and
//!   classifies the answer. The layers of tower-http put the same value on every request, wherever it goes.
//! - A registry keeps a keyed digest of each key, accepts one header only, and checks team and store in a
//!   fixed order.
//!
//! Not compared: a keychain, which is a daemon's work and not the library's; and `aws-config`'s own chain and
//! cache, which would add 48 crates to the build. The chain and the cache here are the same by hand, over the
//! types that it stands on.

mod limits;
mod loading;
mod reading;
mod sending;
mod serving;
mod signing_in;

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use keysheath::key::{ApiKey, Kanal};

const KEY: &str = "Qz7Hk2Vx9Rm4Lt8Wb3Nc6Js1";

/// How many times the two sides take turns.
const TURNS: u32 = 3_000;

/// How long one batch takes, about.
const BATCH: Duration = Duration::from_micros(20);

/// The same for work whose calls differ: a batch is to have thousands of them.
const LONG_TURNS: u32 = 100;
const LONG_BATCH: Duration = Duration::from_millis(2);

/// Starts itself once more with a key in a variable: to set one in a process that runs is unsafe.
fn main() -> ExitCode {
    if std::env::var_os(loading::VARIABLE).is_none() {
        let program = std::env::current_exe().expect("the path of this program");
        let status = Command::new(program).env(loading::VARIABLE, KEY).status().expect("it starts");
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!("| keysheath | ns | beside | ns | ratio |\n|---|---:|---|---:|---|");
    limits::rows();
    loading::rows();
    reading::rows();
    sending::rows();
    serving::rows();
    ExitCode::SUCCESS
}

fn kanal() -> ApiKey<Kanal> {
    ApiKey::parse(KEY).expect("well-formed")
}

/// What a future that is ready at once gives.
fn answer<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

/// Measures the two sides in turns and prints a row of the table.
fn row<A, B>(what: &str, ours: impl Fn() -> A, peer: &str, theirs: impl Fn() -> B) {
    measure(TURNS, BATCH, (what, ours), (peer, theirs));
}

/// As [`row`], for work whose calls differ.
fn row_of_many<A, B>(what: &str, ours: impl Fn() -> A, peer: &str, theirs: impl Fn() -> B) {
    measure(LONG_TURNS, LONG_BATCH, (what, ours), (peer, theirs));
}

fn measure<A, B>(
    turns: u32,
    batch: Duration,
    (what, ours): (&str, impl Fn() -> A),
    (peer, theirs): (&str, impl Fn() -> B),
) {
    let (our_batch, their_batch) = (batch_size(batch, &ours), batch_size(batch, &theirs));
    let (mut our_best, mut their_best) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..turns {
        our_best = our_best.min(nanoseconds(&ours, our_batch));
        their_best = their_best.min(nanoseconds(&theirs, their_batch));
    }
    let times = our_best / their_best;
    let ratio =
        if times > 1.0 { format!("{times:.2}× as long") } else { format!("{:.2}× faster", 1.0 / times) };
    println!("| {what} | {our_best:.1} | {peer} | {their_best:.1} | {ratio} |");
}

/// How many calls take about as long as a batch.
fn batch_size<T>(batch: Duration, work: &impl Fn() -> T) -> u32 {
    let mut count = 1;
    while nanoseconds(work, count) * f64::from(count) < batch.as_secs_f64() * 1e9 {
        count *= 2;
    }
    count
}

/// The time of one call, out of a batch of `count`.
fn nanoseconds<T>(work: &impl Fn() -> T, count: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        black_box(work());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}
