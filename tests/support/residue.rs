//! A global allocator that looks for a planted key in every block that is freed.
//!
//! What counts is the block at the moment it is freed. `realloc` is taken to move every time, which is the
//! worst that it can do. New blocks are zeroed, so that what one scenario left is not found in another's.

#![allow(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use zeroizing_alloc::ZeroAlloc;

use super::child::in_child;

/// The planted key. It is in the program's read-only data, never on the heap.
pub(crate) const KEY: &str = "Qz7Hk2Vx9Rm4Lt8Wb3Nc6Js1";
/// The same in base64, which is as good as the key.
pub(crate) const KEY_BASE64: &str = "UXo3SGsyVng5Um00THQ4V2IzTmM2SnMx";
/// How many bytes in a row make a find: freeing a small block overwrites its first 16 bytes.
const RUN: usize = 8;

// What is looked for is held masked, so that the looking itself plants nothing.
const MASK: u8 = 0xa5;
static MASKED_KEY: [u8; 24] = masked(KEY);
static MASKED_BASE64: [u8; 32] = masked(KEY_BASE64);

const fn masked<const N: usize>(text: &str) -> [u8; N] {
    assert!(text.len() == N);
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = text.as_bytes()[at] ^ MASK;
        at += 1;
    }
    bytes
}

/// A secret of which only the program knows the text, masked; see [`residue_of_secret`].
static MASKED_SECRET: [AtomicU8; 32] = [const { AtomicU8::new(0) }; 32];
static HAS_SECRET: AtomicBool = AtomicBool::new(false);

static ARMED: AtomicBool = AtomicBool::new(false);
static WIPING: AtomicBool = AtomicBool::new(false);
static WHOLE: AtomicUsize = AtomicUsize::new(0);
static PARTIAL: AtomicUsize = AtomicUsize::new(0);

/// Freed blocks that held the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Residue {
    /// Blocks that held all of it.
    pub(crate) whole: usize,
    /// Blocks that held eight bytes in a row of it, and not all.
    pub(crate) partial: usize,
}

pub(crate) const NONE: Residue = Residue { whole: 0, partial: 0 };

impl fmt::Display for Residue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} whole, {} partial", self.whole, self.partial)
    }
}

/// The system's allocator, or between it and the program one that wipes what is freed.
pub(crate) struct Switch {
    plain: Checking,
    wiping: ZeroAlloc<Checking>,
}

impl Switch {
    pub(crate) const fn new() -> Self {
        Self { plain: Checking, wiping: ZeroAlloc(Checking) }
    }
}

// SAFETY: both arms hand every call on to `System` with the same arguments, so a block that was made by one
// may be freed by the other. `realloc` is the trait's own: a new block, a copy, and `dealloc` of the old one.
unsafe impl GlobalAlloc for Switch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the promises of `alloc`, which are the same here.
        unsafe { self.plain.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`, which are the same here.
        unsafe {
            if WIPING.load(Ordering::Relaxed) {
                self.wiping.dealloc(block, layout);
            } else {
                self.plain.dealloc(block, layout);
            }
        }
    }
}

/// The system's allocator, which looks at what it is given back.
struct Checking;

// SAFETY: every call goes to `System` with the same arguments; looking reads the block only while it is
// owned.
unsafe impl GlobalAlloc for Checking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the promises of `alloc`. Zeroed, so that what is looked at is initialized.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if ARMED.load(Ordering::Relaxed) {
            // SAFETY: the block is `layout.size()` bytes long, and nothing else uses it any more.
            note(unsafe { std::slice::from_raw_parts(block, layout.size()) });
        }
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Allocates nothing: it runs inside the allocator.
fn note(block: &[u8]) {
    let (whole_key, run_of_key) = find(block, &MASKED_KEY);
    let (whole_base64, run_of_base64) = find(block, &MASKED_BASE64);
    let (whole_secret, run_of_secret) = if HAS_SECRET.load(Ordering::Relaxed) {
        find(block, &MASKED_SECRET.each_ref().map(|byte| byte.load(Ordering::Relaxed)))
    } else {
        (false, false)
    };
    if whole_key || whole_base64 || whole_secret {
        WHOLE.fetch_add(1, Ordering::Relaxed);
    } else if run_of_key || run_of_base64 || run_of_secret {
        PARTIAL.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a block holds all of a masked text, and whether it holds a run of it.
fn find(block: &[u8], masked: &[u8]) -> (bool, bool) {
    let same =
        |bytes: &[u8], masked: &[u8]| bytes.iter().zip(masked).all(|(byte, masked)| byte ^ MASK == *masked);
    let mut run = false;
    for at in 0..block.len().saturating_sub(RUN - 1) {
        // Most memory is zeros.
        if block[at] == 0 {
            continue;
        }
        let rest = &block[at..];
        if rest.len() >= masked.len() && same(&rest[..masked.len()], masked) {
            return (true, true);
        }
        run = run
            || masked.windows(RUN).any(|wanted| rest[0] ^ MASK == wanted[0] && same(&rest[..RUN], wanted));
    }
    (false, run)
}

/// Does `work` and counts the freed blocks that held the key. What `work` returns is dropped uncounted.
pub(crate) fn residue_of<T>(work: impl FnOnce() -> T) -> Residue {
    let threads = thread_count();
    WHOLE.store(0, Ordering::SeqCst);
    PARTIAL.store(0, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
    let returned = work();
    // What other threads were still doing belongs to it.
    let patience = Instant::now() + Duration::from_millis(500);
    while thread_count() > threads && Instant::now() < patience {
        thread::sleep(Duration::from_millis(1));
    }
    ARMED.store(false, Ordering::SeqCst);
    drop(returned);
    Residue { whole: WHOLE.load(Ordering::SeqCst), partial: PARTIAL.load(Ordering::SeqCst) }
}

/// As [`residue_of`], and counts the blocks that held this secret as well, such as one derived from a text.
#[cfg(feature = "registry")]
pub(crate) fn residue_of_secret<T>(secret: [u8; 32], work: impl FnOnce() -> T) -> Residue {
    for (place, byte) in MASKED_SECRET.iter().zip(secret) {
        place.store(byte ^ MASK, Ordering::SeqCst);
    }
    HAS_SECRET.store(true, Ordering::SeqCst);
    let residue = residue_of(work);
    HAS_SECRET.store(false, Ordering::SeqCst);
    residue
}

/// As [`residue_of`], with an allocator that wipes what is freed.
pub(crate) fn residue_when_wiping<T>(work: impl FnOnce() -> T) -> Residue {
    WIPING.store(true, Ordering::SeqCst);
    let residue = residue_of(work);
    WIPING.store(false, Ordering::SeqCst);
    residue
}

fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux shows a process's threads there").count()
}

/// Runs one test in a process of its own with these variables, so that nothing else is measured.
pub(crate) fn alone(test: &'static str, variables: &[(&str, &str)], scenario: impl FnOnce()) {
    if let Some(output) = in_child(test, variables, scenario) {
        for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(" whole, ")) {
            println!("{line}");
        }
    }
}

/// Whether these bytes hold eight in a row of the key.
pub(crate) fn holds_key(bytes: &[u8]) -> bool {
    find(bytes, &MASKED_KEY).1 || find(bytes, &MASKED_BASE64).1
}
