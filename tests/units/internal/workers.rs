//! The kept threads are the process's, and other tests use them too.

use std::collections::HashSet;
use std::thread::ThreadId;

use super::super::{Caller, Target};
use super::*;

fn call<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, CallError> {
    Caller::new().on_kept_threads().run(Target::of("test of kept threads", &name), work)
}

/// Makes calls until one is made on a thread that an earlier one was made on.
fn kept_thread(name: &str) -> ThreadId {
    let mut seen = HashSet::new();
    loop {
        let id = call(name, || thread::current().id()).unwrap();
        if !seen.insert(id) {
            return id;
        }
    }
}

#[test]
fn calls_that_follow_one_another_share_a_thread() {
    kept_thread("shared");
}

#[test]
fn only_calls_that_follow_one_another_keep_threads() {
    let mut pool = Pool::new(0);
    let mailboxes: Vec<Arc<Mailbox>> = (0..=MAX_IDLE).map(|_| Arc::default()).collect();
    pool.note_call();
    assert!(!pool.take_in(&mailboxes[0]), "a first call");
    pool.note_call();
    let taken: Vec<_> = mailboxes.iter().map(|mailbox| pool.take_in(mailbox)).collect();
    assert_eq!(taken, [true, true, false]);
    pool.idle.clear();
    // Where the clock of a machine that has just started does not reach back, there is nothing to see.
    if let Some(last) = Instant::now().checked_sub(IDLE) {
        pool.last = Some(last);
        pool.note_call();
        assert!(!pool.take_in(&mailboxes[0]), "the one before was long ago");
    }
}

#[test]
fn a_thread_that_is_idle_for_long_ends() {
    let mailbox = Arc::new(Mailbox::default());
    assert!(mailbox.next(Duration::from_millis(1)).is_none());
    Pool::lock().idle.push(Arc::clone(&mailbox));
    // It may be handed another test's call at the last moment, which it has to make.
    if let Some(call) = mailbox.next(Duration::from_millis(1)) {
        call.make();
        call.deliver();
    }
    assert!(!Pool::lock().idle.iter().any(|other| Arc::ptr_eq(other, &mailbox)));
}

#[test]
fn a_thread_whose_call_panicked_is_not_kept() {
    let (tell, told) = mpsc::channel();
    let outcome: Result<(), CallError> = call("panics", move || {
        tell.send(thread::current().id()).unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    assert_eq!(outcome, Err(CallError::Panicked));
    let id = told.recv().unwrap();
    assert!((0..100).all(|_| kept_thread("after a panic") != id));
}

#[test]
fn a_kept_thread_that_hangs_is_replaced() {
    kept_thread("before it hangs");
    let mut releases = Vec::new();
    for _ in 0..=MAX_IDLE {
        let (release, held) = mpsc::channel::<()>();
        releases.push(release);
        let hurried = Caller::new().on_kept_threads().with_deadline(Duration::from_millis(5));
        let place = Target::of("test of kept threads", &"hangs");
        assert!(hurried.run(place, move || held.recv().is_err()).is_err());
    }
    assert_eq!(call("beside one that hangs", || 7), Ok(7));
}

#[test]
fn a_call_of_its_own_thread_never_runs_on_a_kept_one() {
    let kept: HashSet<_> = (0..10).map(|_| kept_thread("kept")).collect();
    for _ in 0..10 {
        let place = Target::of("test of kept threads", &"own");
        let id = Caller::new().run(place, || thread::current().id()).unwrap();
        assert!(!kept.contains(&id));
    }
}

/// What P2 says of stacks, where a call does leave a key.
#[cfg(target_os = "linux")]
mod wiped {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::internal::bytes::CALL;

    /// How deep a call reaches here: all but what its own frames have.
    const DEPTH: usize = CALL - 4 * 1024;

    /// The secret, which is in no writable memory but the stack of the call.
    fn byte(at: usize) -> u8 {
        u8::try_from(at * 37 % 251).unwrap()
    }

    /// Leaves the secret on the stack below an address, down to a depth.
    #[inline(never)]
    fn leave_traces(top: u64, depth: usize) {
        let mut secret = [0_u8; 1024];
        for (at, slot) in secret.iter_mut().enumerate() {
            *slot = byte(at % 32);
        }
        let here = black_box(&raw mut secret) as u64;
        if top.saturating_sub(here) < depth as u64 {
            leave_traces(top, depth);
        }
        black_box(&mut secret);
    }

    /// A kept thread, by the kernel's number, and an address on its stack.
    fn place() -> (u64, u64) {
        let link = fs::read_link("/proc/thread-self").unwrap();
        let here = 0_u8;
        let number = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
        (number, black_box(&raw const here) as u64)
    }

    /// How often the secret is on the stack that this address is on.
    fn traces(address: u64) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let part = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some((number(start)?, number(end)?))
        };
        let (start, end) =
            maps.lines().filter_map(part).find(|(start, end)| (start..end).contains(&&address)).unwrap();
        let mut stack = vec![0; usize::try_from(end - start).unwrap()];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut stack, start).unwrap();
        let is_secret = |bytes: &[u8]| bytes.iter().enumerate().all(|(at, found)| *found == byte(at));
        stack.windows(32).filter(|bytes| is_secret(bytes)).count()
    }

    #[test]
    fn what_a_call_left_on_its_stack_is_gone_with_its_outcome() {
        let left_by = || {
            let (number, address) = place();
            leave_traces(address, DEPTH);
            (number, address)
        };
        let at_work = call("traces", move || traces(left_by().1));
        assert!(at_work.unwrap() > DEPTH / 100, "they are there while the call is under way");
        let mut looked_at = 0;
        while looked_at < 10 {
            let (number, address) = call("traces", left_by).unwrap();
            let is_there = || fs::exists(format!("/proc/self/task/{number}")).unwrap();
            if !is_there() {
                continue;
            }
            let left = traces(address);
            // Where it has ended meanwhile, its stack may be another's.
            if is_there() {
                assert_eq!(left, 0);
                looked_at += 1;
            }
        }
    }
}
