//! What the crate's common operations cost, as ratios to a peer measured in the same run.
//!
//! ```sh
//! cargo bench --all-features --bench ratios
//! ```
//!
//! Batches of the two take turns, and the smallest time seen of each counts: what a busy machine adds, it
//! adds to both. Where two threads read at once, the median counts. A ratio is printed beside the target that
//! the project has set itself; where one is missed, the program ends with an error.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use keysheath::chain::Chain;
use keysheath::client::{BearerHeader, BearerLayer, OriginGuard, RetryLayer};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Issuer, Kanal};
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::source::SecretFile;
use subtle::ConstantTimeEq;
use tower::{Layer, Service, service_fn};

const KEY: &str = "Qz7Hk2Vx9Rm4Lt8Wb3Nc6Js1";

/// How many times the two take turns.
const TURNS: u32 = 10_000;

/// The same for what two threads do.
const TURNS_OF_TWO: u32 = 300;

/// How many calls each of the two makes in one turn: enough for the start to be nothing.
const CALLS_OF_TWO: u32 = 50_000;

/// How long one batch takes, about.
const BATCH: Duration = Duration::from_micros(20);

/// What a ratio is to be.
#[derive(Clone, Copy)]
enum Target {
    /// At most so many times the peer's time.
    AtMost(f64),
    /// At least so many times faster than the peer.
    Faster(f64),
    /// For information.
    None,
}

fn main() {
    println!("| what | ns | peer | peer ns | ratio | target |\n|---|---:|---|---:|---|---|");
    equality();
    checking();
    parsing();
    header();
    layer();
    live_handle();
    assert_eq!(MISSED.load(Ordering::Relaxed), 0, "targets were missed");
}

/// How many targets were missed.
static MISSED: AtomicU32 = AtomicU32::new(0);

fn equality() {
    let (left, right) = (kanal(), kanal());
    let what = "`ApiKey == ApiKey`";
    let ours = || black_box(&left) == black_box(&right);
    let (a, b) = (*array(), *array());
    row(what, ours, "`==` of `[u8; 24]`", || black_box(&a) == black_box(&b), Target::AtMost(2.0));
    let subtle = || bool::from(black_box(&a[..]).ct_eq(black_box(&b[..])));
    row(what, ours, "`subtle` on slices", subtle, Target::Faster(6.0));
    let slices = || constant_time_eq::constant_time_eq(black_box(&a[..]), black_box(&b[..]));
    row(what, ours, "`constant_time_eq`", slices, Target::None);
    let arrays = || constant_time_eq::constant_time_eq_n(black_box(&a), black_box(&b));
    row(what, ours, "`constant_time_eq_n`", arrays, Target::None);
    let matches = || black_box(&left).matches(black_box(&b[..]));
    row(
        "`ApiKey::matches`",
        matches,
        "`==` of slices",
        || black_box(&a[..]) == black_box(&b[..]),
        Target::None,
    );
}

fn checking() {
    let format = *Kanal::PROFILE.format();
    // One key again and again would let the processor learn where its digits are.
    let keys = random_keys();
    let ours = || keys.iter().filter(|key| format.check(black_box(key.as_bytes())).is_ok()).count();
    let theirs = || keys.iter().filter(|key| plain_rule(black_box(key))).count();
    row("`KeyFormat::check` of 1,000 keys", ours, "`chars().all(…)`", theirs, Target::Faster(3.0));
    let one = || black_box(format).check(black_box(KEY.as_bytes())).is_ok();
    row("… of one key every time", one, "`chars().all(…)`", || plain_rule(black_box(KEY)), Target::None);
}

/// A thousand keys of letters and digits.
fn random_keys() -> Vec<String> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        // Xorshift, which is random enough to guess badly by.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[usize::try_from(state % 62).expect("below 62")])
    };
    (0..1_000).map(|_| (0..24).map(|_| letter()).collect()).collect()
}

/// The same rule as people write it.
#[inline(never)]
fn plain_rule(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/');
    text.len() == 24 && !body.is_empty() && body.chars().all(is_token)
}

fn parsing() {
    let what = "`ApiKey::parse`, drop";
    let ours = || drop(black_box(ApiKey::<Kanal>::parse(black_box(KEY))));
    let block = || drop(black_box(Box::<[u8]>::from(black_box(KEY.as_bytes()))));
    row(what, ours, "`Box<[u8]>` of 24 bytes, drop", block, Target::AtMost(1.6));
    let key = kanal();
    let clone = || drop(black_box(black_box(&key).clone_key()));
    row("`ApiKey::clone_key`, drop", clone, "`Box<[u8]>` of 24 bytes, drop", block, Target::None);
    let exposed = || black_box(&key).expose_secret().len();
    let utf8 = || std::str::from_utf8(black_box(KEY.as_bytes())).is_ok();
    row("`ApiKey::expose_secret`", exposed, "`str::from_utf8`", utf8, Target::None);
    let printed = || black_box(&key).fingerprint();
    let hash = || hmac_sha256::Hash::hash(black_box(KEY.as_bytes()));
    row("`ApiKey::fingerprint`", printed, "SHA-256 of 24 bytes", hash, Target::None);
}

fn header() {
    let key = kanal();
    let header = BearerHeader::new(&key);
    let ours = || drop(black_box(black_box(&header).value()));
    let built = || {
        let text = format!("Bearer {}", black_box(KEY));
        drop(black_box(HeaderValue::from_str(&text)));
    };
    let peer = "`format!(\"Bearer …\")`, `HeaderValue::from_str`, drop";
    row("`BearerHeader::value`, drop", ours, peer, built, Target::Faster(8.0));
    // What any value costs that requests share: one atomic step to take it, and one to let go of it.
    let shared = Arc::new(KEY);
    let arc = || drop(black_box(Arc::clone(black_box(&shared))));
    row("`BearerHeader::value`, drop", ours, "`Arc::clone`, drop", arc, Target::AtMost(1.5));
    let whole = || drop(black_box(BearerHeader::new(black_box(&key))));
    row("`BearerHeader::new`, drop", whole, peer, built, Target::None);
}

/// A whole call, over a client that does nothing but drop the request and answer 200 with a short body.
fn layer() {
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_static("https://api.getkanal.com/api/v1/stores/123/orders?page=2");
    let header = BearerHeader::new(&kanal());
    let client = || {
        service_fn(|request: Request<()>| {
            drop(black_box(request));
            ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}")))))
        })
    };
    let layer = BearerLayer::new(KeyHandle::fixed(kanal()), OriginGuard::new());
    let layered = RefCell::new(layer.layer(client()));
    let ours = || answer(layered.borrow_mut().call(black_box(&request).clone()));
    let bare = RefCell::new(client());
    let theirs = || {
        let mut request = black_box(&request).clone();
        request.headers_mut().insert(AUTHORIZATION, black_box(&header).value());
        answer(bare.borrow_mut().call(request))
    };
    let peer = "a ready-made value inserted by hand";
    row("a call through `BearerLayer`", ours, peer, theirs, Target::AtMost(2.0));
    let retried = RefCell::new(RetryLayer::new(|_| ready(())).layer(layer.layer(client())));
    let both = || answer(retried.borrow_mut().call(black_box(&request).clone()));
    row("… and `RetryLayer` around it", both, peer, theirs, Target::None);
}

/// The active key of a live handle, as it is read for each request.
fn live_handle() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("kanal");
    std::fs::write(&path, KEY).expect("a file");
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
    let refresher = Refresher::from_chain(chain, RefreshSettings::new()).expect("the key is there");
    let handle = refresher.handle();

    let what = "`KeyHandle::load`, live, drop";
    let ours = || drop(black_box(black_box(&handle).load()));
    let swap = ArcSwap::from_pointee(kanal());
    let theirs = || drop(black_box(black_box(&swap).load()));
    row(what, ours, "`arc_swap::ArcSwap::load`, drop", theirs, Target::AtMost(1.2));
    let lock = RwLock::new(Arc::new(kanal()));
    let theirs = || drop(black_box(Arc::clone(&black_box(&lock).read().expect("no panic"))));
    row_of_two("… by two threads", ours, "`RwLock<Arc<_>>`, read and clone, by two threads", theirs, 2.0);

    let read =
        || black_box(&handle).load().map(|snapshot| BearerHeader::for_snapshot(&snapshot).value().len());
    let cell = OnceLock::from(BearerHeader::new(&kanal()));
    let get = || black_box(&cell).get().map(|header| header.value().len());
    row(
        "`load`, `BearerHeader::for_snapshot`, its value",
        read,
        "`OnceLock::get`, its value",
        get,
        Target::AtMost(3.0),
    );
}

/// What a future that is ready at once gives.
fn answer<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn kanal() -> ApiKey<Kanal> {
    ApiKey::parse(KEY).expect("well-formed")
}

fn array() -> &'static [u8; 24] {
    KEY.as_bytes().first_chunk().expect("24 bytes")
}

/// Measures the two in turns and prints a row of the table.
fn row<A, B>(what: &str, ours: impl Fn() -> A, peer: &str, theirs: impl Fn() -> B, target: Target) {
    let (our_batch, their_batch) = (batch_size(&ours), batch_size(&theirs));
    let (mut our_best, mut their_best) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TURNS {
        our_best = our_best.min(nanoseconds(&ours, our_batch));
        their_best = their_best.min(nanoseconds(&theirs, their_batch));
    }
    print_row(what, our_best, peer, their_best, target);
}

/// As [`row`], of what two threads do at the same time. The median of the turns counts, and only of those in
/// which both ran at once: on a busy machine, one often runs after the other, and then neither is in the
/// other's way.
fn row_of_two<A, B>(
    what: &str,
    ours: impl Fn() -> A + Sync,
    peer: &str,
    theirs: impl Fn() -> B + Sync,
    least: f64,
) {
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..TURNS_OF_TWO {
        our_times.extend(nanoseconds_of_two(&ours));
        their_times.extend(nanoseconds_of_two(&theirs));
    }
    let what = format!("{what} ({} and {} turns at once)", our_times.len(), their_times.len());
    print_row(&what, median(our_times), peer, median(their_times), Target::Faster(least));
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    *times.get(times.len() / 2).expect("the two ran at once in no turn: the machine is too busy")
}

/// The time of one call where two threads make [`CALLS_OF_TWO`] each; none unless they ran at once for nine
/// tenths of it.
fn nanoseconds_of_two<T>(work: &(impl Fn() -> T + Sync)) -> Option<f64> {
    let there = AtomicU32::new(0);
    let one = || {
        there.fetch_add(1, Ordering::SeqCst);
        // Not a lock, which would wake one of the two late.
        while there.load(Ordering::SeqCst) < 2 {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        for _ in 0..CALLS_OF_TWO {
            black_box(work());
        }
        (start, Instant::now())
    };
    let (this, other) = std::thread::scope(|scope| {
        let other = scope.spawn(one);
        (one(), other.join().expect("no panic"))
    });
    let whole = this.1.max(other.1) - this.0.min(other.0);
    let at_once = this.1.min(other.1).saturating_duration_since(this.0.max(other.0));
    let both = (this.1 - this.0 + (other.1 - other.0)).as_secs_f64() / 2.0;
    (at_once >= whole.mul_f64(0.9)).then(|| both * 1e9 / f64::from(CALLS_OF_TWO))
}

fn print_row(what: &str, our_time: f64, peer: &str, their_time: f64, target: Target) {
    let times = our_time / their_time;
    let ratio =
        if times > 1.0 { format!("{times:.2}× as long") } else { format!("{:.2}× faster", 1.0 / times) };
    let verdict = |met: bool| {
        MISSED.fetch_add(u32::from(!met), Ordering::Relaxed);
        if met { "met" } else { "**not met**" }
    };
    let target = match target {
        Target::AtMost(most) => format!("at most {most}× as long: {}", verdict(times <= most)),
        Target::Faster(least) => format!("at least {least}× faster: {}", verdict(1.0 / times >= least)),
        Target::None => String::new(),
    };
    println!("| {what} | {our_time:.2} | {peer} | {their_time:.2} | {ratio} | {target} |");
}

/// How many calls take about [`BATCH`].
fn batch_size<T>(work: &impl Fn() -> T) -> u32 {
    let mut count = 16;
    while nanoseconds(work, count) * f64::from(count) < BATCH.as_secs_f64() * 1e9 {
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
