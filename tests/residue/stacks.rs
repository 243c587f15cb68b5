//! P2, beyond the heap: the threads that loads are made on are kept for the next ones, and nothing of a key
//! is left on their stacks, nor anywhere else in memory that can be written. The whole memory of the process
//! is looked through, the stacks of live threads included; with an allocator that wipes what is freed,
//! because TLS leaves keys on the heap (SECURITY.md).
//!
//! The caller's own stack is left out: what a caller does with a key is on it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use keysheath::key::{Issuer as _, Kanal, Origin, Roots};
use keysheath::openbao::{Login, OpenBao};
use keysheath::source::{self, Command, DotenvFile, Loaded, OpenBaoField, SecretFile, Source};
use keysheath::store::{DocumentContent, DocumentStore, FileStore, OpenBaoStore};
use serde_json::json;

use crate::support::Folder;
use crate::support::openbao::{ROOT, Server};
use crate::support::residue::{KEY, KEY_BASE64, alone, holds_key, residue_when_wiping};
use crate::support::waiting::PATIENCE;

/// The name of the kept threads, as far as the kernel keeps it.
const KEPT: &str = "keysheath-sourc";

/// A part of the process's memory that can be written.
#[derive(Clone, Debug)]
struct Part {
    start: u64,
    end: u64,
    /// The thread whose stack it is, where that is known.
    thread: Option<String>,
}

/// The stack pointer of a thread that waits in the kernel.
fn stack_pointer(task: &fs::DirEntry) -> Option<u64> {
    let call = fs::read_to_string(task.path().join("syscall")).ok()?;
    let hexadecimal = call.split_whitespace().rev().nth(1)?.strip_prefix("0x")?;
    u64::from_str_radix(hexadecimal, 16).ok()
}

fn parts() -> Vec<Part> {
    let part = |line: &str| {
        let mut words = line.split(' ');
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let can_be_written = words.next()?.starts_with("rw");
        can_be_written.then_some(Part { start: number(start)?, end: number(end)?, thread: None })
    };
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut parts: Vec<_> = maps.lines().filter_map(part).collect();
    for task in fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap) {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let Some(at) = stack_pointer(&task) else { continue };
        if let Some(part) = parts.iter_mut().find(|part| (part.start..part.end).contains(&at)) {
            part.thread = Some(name.trim().to_owned());
        }
    }
    parts
}

/// The parts in which eight bytes in a row of the key are, except the stack of this thread.
fn parts_with_the_key() -> Vec<Part> {
    const PIECE: usize = 64 * 1024;
    let memory = File::open("/proc/self/mem").unwrap();
    let mut bytes = vec![0; PIECE];
    let (own, buffer) = (&raw const memory as u64, bytes.as_ptr() as u64);
    let mut found = parts();
    found.retain(|part| {
        let is_own = (part.start..part.end).contains(&own);
        !is_own
            && (part.start..part.end).step_by(PIECE).any(|at| {
                let length = PIECE.min(usize::try_from(part.end - at).unwrap());
                // In the buffer is what has been looked at before.
                let is_buffer = at < buffer + PIECE as u64 && buffer < at + length as u64;
                !is_buffer
                    && memory.read_exact_at(&mut bytes[..length], at).is_ok()
                    && holds_key(&bytes[..length])
            })
    });
    bytes.fill(0);
    found
}

/// The stacks of the kept threads that wait for a call, down to where they were ever written. Where none is
/// there any more, as on a machine that is slow for a minute, the calls are made again.
fn kept_stacks(call: &dyn Fn()) -> Vec<Vec<u8>> {
    let memory = File::open("/proc/self/mem").unwrap();
    let is_kept = |part: &Part| part.thread.as_deref() == Some(KEPT);
    let stack = |part: Part| {
        let mut stack = vec![0; usize::try_from(part.end - part.start).unwrap()];
        memory.read_exact_at(&mut stack, part.start).unwrap();
        stack.split_off(stack.iter().position(|byte| *byte != 0).unwrap_or_default())
    };
    let (start, mut stacks) = (Instant::now(), Vec::new());
    while stacks.is_empty() {
        assert!(start.elapsed() < PATIENCE, "no thread is kept");
        (0..2).for_each(|_| call());
        // It is on its way to wait in the kernel, where its stack is known.
        for _ in 0..100 {
            stacks = parts().into_iter().filter(is_kept).map(stack).collect();
            if !stacks.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    stacks
}

/// What a thread has above its calls: what is its own, and the frames from which a call is made.
const ABOVE: usize = 16 * 1024;

/// What wiping itself has below.
const BELOW: usize = 1024;

/// What is wiped between the two.
const WIPED: usize = if cfg!(debug_assertions) { 512 * 1024 } else { 96 * 1024 };

fn is_wiped(stack: &[u8]) -> bool {
    let is_as_deep = (WIPED..WIPED + ABOVE + BELOW).contains(&stack.len());
    is_as_deep && stack[BELOW..stack.len() - ABOVE].iter().all(|byte| *byte == 0)
}

#[test]
fn a_key_on_the_stack_of_a_live_thread_is_found() {
    const TEST: &str = "a_key_on_the_stack_of_a_live_thread_is_found";
    alone(TEST, &[], || {
        assert_eq!(parts_with_the_key().len(), 0);
        let (tell, told) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holds = move || {
            let mut copy = [0_u8; 24];
            copy.copy_from_slice(KEY.as_bytes());
            std::hint::black_box(&mut copy);
            tell.send(()).unwrap();
            assert!(held.recv().is_err());
            std::hint::black_box(&mut copy);
        };
        let thread = std::thread::Builder::new().name("holds".into()).spawn(holds).unwrap();
        told.recv().unwrap();
        // It is on its way to wait in the kernel, where its stack is known.
        while parts().iter().all(|part| part.thread.as_deref() != Some("holds")) {
            std::thread::yield_now();
        }
        let found = parts_with_the_key();
        assert!(found.iter().any(|part| part.thread.as_deref() == Some("holds")), "{found:x?}");
        drop(release);
        thread.join().unwrap();
    });
}

fn loads(source: &dyn Source) {
    match source::load(source, Kanal::PROFILE) {
        Ok(Loaded::Found(found)) => assert!(found.key().matches(KEY.as_bytes())),
        other => panic!("no key: {other:?}"),
    }
}

fn writes_and_reads(store: &dyn DocumentStore) {
    let there = store.version().unwrap();
    let content = DocumentContent::from(KEY.as_bytes().to_vec());
    let version = store.write(&content, there.as_ref()).unwrap();
    assert_eq!(store.read().unwrap().unwrap().version(), &version);
}

/// A client of its own, so that the handshake is on the kept thread.
fn client() -> OpenBao {
    let variable = |name: &str| std::env::var(name).unwrap();
    let roots = Roots::from_pem(variable("BAO_PEM").as_bytes()).unwrap();
    let login = Login::token(ROOT.to_owned());
    OpenBao::at(Origin::parse(&variable("BAO")).unwrap(), login).unwrap().with_roots(roots)
}

#[test]
fn nothing_of_a_key_is_left_on_a_kept_stack() {
    const TEST: &str = "nothing_of_a_key_is_left_on_a_kept_stack";
    // The server is the parent's, because its memory would be looked through otherwise.
    let server = std::env::var_os("BAO").is_none().then(Server::start);
    let (mut address, mut pem) = (String::new(), String::new());
    if let Some(server) = &server {
        server.put("secret/kanal", &json!({ "key": KEY }));
        (address, pem) = (server.address().to_string(), server.pem.clone());
    }
    let folder = Folder::new();
    let path = folder.at("key");
    let variables = [("BAO", &*address), ("BAO_PEM", &pem), ("SHOP_FILE", path.to_str().unwrap())];
    alone(TEST, &variables, || {
        let path = std::env::var("SHOP_FILE").unwrap();
        let at = |end: &str| format!("{path}{end}");
        for (end, parts) in [
            ("", [KEY, "", "\n"]),
            ("64", [KEY_BASE64, "", ""]),
            // With an escape in it, so that it is no part of the file as it is.
            ("json", [r#"{"k":"\u0051"#, &KEY[1..], "\"}"]),
            ("env", ["SHOP_KEY=\"", KEY, "\"\n"]),
        ] {
            // No part goes through memory that can be written.
            let mut file = File::create(at(end)).unwrap();
            for part in parts {
                file.write_all(part.as_bytes()).unwrap();
            }
        }
        let calls: [(&str, &dyn Fn()); 9] = [
            ("a file", &|| loads(&SecretFile::new(&path))),
            ("the file of a variable", &|| loads(&SecretFile::named_by_variable("SHOP"))),
            ("base64", &|| loads(&SecretFile::new(at("64")).base64())),
            ("JSON", &|| loads(&SecretFile::new(at("json")).field("k"))),
            (".env", &|| loads(&DotenvFile::new(at("env"), "SHOP_KEY"))),
            ("a command", &|| loads(&Command::new("cat").args([&path]))),
            // A connection that is kept alive has the last answer in its buffers, so it ends here.
            ("OpenBao", &|| {
                let source = OpenBaoField::new(client(), "secret/kanal", "key");
                (0..2).for_each(|_| loads(&source));
            }),
            ("a document", &|| writes_and_reads(&FileStore::new(at(".document")))),
            ("a document in OpenBao", &|| writes_and_reads(&OpenBaoStore::new(client(), "secret/keys"))),
        ];
        residue_when_wiping(|| {
            for (name, call) in calls {
                (0..3).for_each(|_| call());
                let (found, stacks) = (parts_with_the_key(), kept_stacks(call));
                let depths: Vec<_> = stacks.iter().map(Vec::len).collect();
                println!("0 whole, after {name}; kept stacks of {depths:?} bytes");
                assert!(found.is_empty(), "after {name}: {found:x?}");
                assert!(stacks.iter().all(|stack| is_wiped(stack)), "after {name}: {depths:?}");
            }
        });
    });
}
