//! P12: an untrusted byte string never panics and never allocates without bound.
//!
//! What the fuzz targets run on bytes that are made up runs here on the committed seeds, as ordinary tests:
//! the bodies are the same files.

#![cfg(all(
    feature = "client",
    feature = "dotenv",
    feature = "oauth",
    feature = "openbao",
    feature = "registry",
    feature = "rotation"
))]
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keysheath::failure::Meaning;
use keysheath::key::{Issuer, Kanal};

#[path = "../fuzz/bodies/authorization_header.rs"]
mod authorization_header;
#[path = "../fuzz/bodies/classify.rs"]
mod classify;
#[path = "../fuzz/bodies/dotenv.rs"]
mod dotenv;
#[path = "../fuzz/bodies/grant.rs"]
mod grant;
#[path = "../fuzz/bodies/key_ref.rs"]
mod key_ref;
#[path = "../fuzz/bodies/key_set.rs"]
mod key_set;
#[path = "../fuzz/bodies/openbao.rs"]
mod openbao;
#[allow(unexpected_cfgs, reason = "`fuzzing` is set by scripts/fuzz and cargo-fuzz")]
#[path = "../fuzz/bodies/parse.rs"]
mod parse;
#[path = "../fuzz/bodies/presence.rs"]
mod presence;
#[path = "../fuzz/bodies/sign_in.rs"]
mod sign_in;
#[path = "../fuzz/bodies/token_answer.rs"]
mod token_answer;

/// Counts the bytes that are allocated, and the most that ever were at once.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator as it came; `realloc` is made of these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

/// One test at a time: the counters are the process's.
fn alone() -> MutexGuard<'static, ()> {
    static MEASURING: Mutex<()> = Mutex::new(());
    MEASURING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most bytes that were allocated at once during `work`, beyond those before it.
fn most_allocated(work: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work();
    MOST.load(Ordering::Relaxed).saturating_sub(before)
}

/// No seed is larger than 8 KiB, and none takes more than this.
const MOST_FOR_A_SEED: usize = 512 * 1024;

fn replay(target: &str, body: fn(&[u8])) {
    let _alone = alone();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> =
        folder.read_dir().expect("the seeds are committed").map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 40, "{target} has {} seeds only", seeds.len());
    for seed in seeds {
        let data = std::fs::read(&seed).unwrap();
        assert!(data.len() <= 8 * 1024, "{} is large for a seed", seed.display());
        // The test harness shows this line when the body panics.
        println!("{}", seed.display());
        let most = most_allocated(|| body(&data));
        assert!(most <= MOST_FOR_A_SEED, "{} took {most} bytes", seed.display());
    }
}

/// The largest body that is looked at, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Measured: a 64 KiB body of nothing but one-member objects takes 80 bytes for each of its own.
const MOST_FOR_A_BODY: usize = 8 * 1024 * 1024;

#[test]
fn each_fuzz_target_has_seeds_and_is_replayed_here() {
    let _alone = alone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (folder, suffix) in [("seeds", ""), ("fuzz_targets", ".rs"), ("bodies", ".rs")] {
        let entries = root.join(folder).read_dir().unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let targets = [
            "authorization_header",
            "classify",
            "dotenv",
            "grant",
            "key_ref",
            "key_set",
            "openbao",
            "parse",
            "presence",
            "sign_in",
            "token_answer",
        ]
        .map(|name| format!("{name}{suffix}"));
        assert_eq!(names, targets, "fuzz/{folder}");
    }
}

#[test]
fn a_body_takes_bounded_memory_however_it_is_made() {
    let _alone = alone();
    let refused = r#"{ "error": "Invalid API key" }"#;
    for (what, unit) in
        [("objects", "{\"\":0},"), ("arrays", "[],"), ("numbers", "0,"), ("strings", "\"\","), ("depth", "[")]
    {
        for size in [MAX_BODY, MAX_BODY + 1, 10 * 1024 * 1024] {
            let mut body = format!("[{}", unit.repeat(size / unit.len()));
            body.truncate(size - 2);
            let end = body.rfind(',').unwrap_or(body.len());
            body.truncate(end);
            body.push_str(&" ".repeat(size - 1 - end));
            body.push(']');
            assert_eq!(body.len(), size);
            let most = most_allocated(|| {
                let answer = Kanal::PROFILE.classify(401, None, body.as_bytes());
                assert_eq!(answer.meaning(), Meaning::Inconclusive);
            });
            println!("{what}, {size} bytes: {most}");
            let limit = if size <= MAX_BODY { MOST_FOR_A_BODY } else { 0 };
            assert!(most <= limit, "{what}: {size} bytes took {most}");
        }
    }
    let padded = |size: usize| format!("{refused}{}", " ".repeat(size - refused.len()));
    let meaning = |body: &str| Kanal::PROFILE.classify(401, None, body.as_bytes()).meaning();
    assert_eq!(meaning(&padded(MAX_BODY)), Meaning::KeyRefused);
    assert_eq!(meaning(&padded(MAX_BODY + 1)), Meaning::Inconclusive);
}

#[test]
fn the_seeds_of_parse_are_replayed() {
    replay("parse", parse::parse);
}

#[test]
fn the_seeds_of_key_ref_are_replayed() {
    replay("key_ref", key_ref::key_ref);
}

#[test]
fn the_seeds_of_dotenv_are_replayed() {
    replay("dotenv", dotenv::dotenv);
}

#[test]
fn the_seeds_of_classify_are_replayed() {
    replay("classify", classify::classify);
}

#[test]
fn the_seeds_of_authorization_header_are_replayed() {
    // What is made once is not the seed's.
    authorization_header::authorization_header(b"");
    replay("authorization_header", authorization_header::authorization_header);
}

#[test]
fn the_seeds_of_key_set_are_replayed() {
    replay("key_set", key_set::key_set);
}

#[test]
fn the_seeds_of_grant_are_replayed() {
    grant::grant(b"");
    replay("grant", grant::grant);
}

#[test]
fn the_seeds_of_presence_are_replayed() {
    replay("presence", presence::presence);
}

#[test]
fn the_seeds_of_token_answer_are_replayed() {
    token_answer::token_answer(b"");
    replay("token_answer", token_answer::token_answer);
}

#[test]
fn the_seeds_of_sign_in_are_replayed() {
    sign_in::sign_in(b"");
    replay("sign_in", sign_in::sign_in);
}

#[test]
fn the_seeds_of_openbao_are_replayed() {
    openbao::openbao(b"");
    replay("openbao", openbao::openbao);
}
