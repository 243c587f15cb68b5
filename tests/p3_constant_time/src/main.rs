//! P3: checking a well-formed key and comparing two keys take a time that does not depend on their bytes.
//!
//! Each case runs alone under valgrind's memcheck, to which the key's bytes are declared undefined. A branch
//! or an address that depends on one of them is then an error, and the case ends with status 99. Only the
//! verdict is declared defined, to be printed.
//!
//! ```sh
//! cargo run --release --manifest-path tests/p3_constant_time/Cargo.toml
//! ```
//!
//! `scripts/test` runs it a second time with link-time optimization, which sees more of the code at once.
#![allow(unsafe_code, reason = "valgrind is spoken to by a sequence of instructions")]

use std::hint::black_box;
use std::num::NonZero;
use std::process::{Command, ExitCode};
use std::thread;

use keysheath::key::{ApiKey, Issuer, Kanal, Katana, KeyFormat, RawKey};

const KEY: &str = "Qz7Hk2Vx9Rm4Lt8Wb3Nc6Js1";
const FIRST_DIFFERS: &str = "Az7Hk2Vx9Rm4Lt8Wb3Nc6Js1";
const LAST_DIFFERS: &str = "Qz7Hk2Vx9Rm4Lt8Wb3Nc6JsA";

/// What valgrind answers with on a finding.
const FOUND: i32 = 99;

/// What a case is expected to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The time does not depend on the bytes.
    Constant,
    /// It does, and memcheck must say so: else a silent memcheck means nothing.
    Caught,
}

struct Case {
    name: &'static str,
    expected: Expected,
    verdict: bool,
    run: fn() -> bool,
}

const fn constant(name: &'static str, verdict: bool, run: fn() -> bool) -> Case {
    Case { name, expected: Expected::Constant, verdict, run }
}

const fn caught(name: &'static str, verdict: bool, run: fn() -> bool) -> Case {
    Case { name, expected: Expected::Caught, verdict, run }
}

const CASES: &[Case] = &[
    constant("exactly 24: a well-formed key is accepted", true, || accepts(KeyFormat::exactly(24), KEY)),
    constant("exactly 24: padding at the end is accepted", true, || {
        accepts(KeyFormat::exactly(24), "Qz7Hk2Vx9Rm4Lt8Wb3Nc6J==")
    }),
    constant("exactly 24: each sign of the alphabet is accepted", true, || {
        accepts(KeyFormat::exactly(24), "-._~+/azAZ09-._~+/azAZ==")
    }),
    constant("16 to 512: 16 bytes are accepted", true, || accepts_length(16)),
    constant("16 to 512: 17 bytes are accepted", true, || accepts_length(17)),
    constant("16 to 512: 23 bytes are accepted", true, || accepts_length(23)),
    constant("16 to 512: 36 bytes are accepted", true, || accepts_length(36)),
    constant("16 to 512: 511 bytes are accepted", true, || accepts_length(511)),
    constant("16 to 512: 512 bytes are accepted", true, || accepts_length(512)),
    constant("16 to 512: padding in the last, part word is accepted", true, || {
        accepts(KeyFormat::between(16, 512), "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f60==")
    }),
    constant("16 to 512: padding across a word border is accepted", true, || {
        accepts(KeyFormat::between(16, 512), "0190b3c4-5d6e-7f80-9a1b-2c3d4=====")
    }),
    constant("ApiKey ==: equal", true, || keys_equal(KEY, KEY)),
    constant("ApiKey ==: the first byte differs", false, || keys_equal(KEY, FIRST_DIFFERS)),
    constant("ApiKey ==: the last byte differs", false, || keys_equal(KEY, LAST_DIFFERS)),
    constant("ApiKey ==: 36 bytes, equal", true, || katana_equal("5f6071", "5f6071")),
    constant("ApiKey ==: 36 bytes, the last byte differs", false, || katana_equal("5f6071", "5f6072")),
    constant("ApiKey ==: 41 bytes, the last byte differs", false, || {
        katana_equal("5f607100001", "5f607100002")
    }),
    constant("ApiKey::matches: the key itself", true, || matches(KEY)),
    constant("ApiKey::matches: the first byte differs", false, || matches(FIRST_DIFFERS)),
    constant("ApiKey::matches: the last byte differs", false, || matches(LAST_DIFFERS)),
    constant("ApiKey::matches: another length", false, || matches(&KEY[1..])),
    constant("RawKey ==: equal", true, || raw_equal(KEY)),
    constant("RawKey ==: the first byte differs", false, || raw_equal(FIRST_DIFFERS)),
    constant("RawKey ==: the last byte differs", false, || raw_equal(LAST_DIFFERS)),
    caught("control: a loop that leaves at the first difference", false, || {
        let (left, right) = (secret(KEY), secret(LAST_DIFFERS));
        early_exit(black_box(&left), black_box(&right))
    }),
    caught("control: == of slices", true, || {
        let (left, right) = (secret(KEY), secret(KEY));
        black_box(&left[..]) == black_box(&right[..])
    }),
    caught("control: chars().all(…)", true, || {
        let text = secret(KEY);
        black_box(&text[..]).iter().copied().map(char::from).all(|c| c.is_ascii_alphanumeric())
    }),
    caught("control: a look-up in a table", true, || {
        let mut table = [0_u8; 256];
        table[b'0'.into()..].fill(1);
        let (text, table) = (secret(KEY), black_box(table));
        text.iter().fold(1, |all, &byte| all & table[usize::from(byte)]) == 1
    }),
];

fn accepts(format: KeyFormat, text: &str) -> bool {
    let text = secret(text);
    black_box(format).accepts(black_box(&text))
}

fn accepts_length(length: usize) -> bool {
    let text: String = KEY.chars().cycle().take(length).collect();
    accepts(KeyFormat::between(16, 512), &text)
}

fn keys_equal(left: &str, right: &str) -> bool {
    let (left, right) = (kanal(left), kanal(right));
    black_box(&left) == black_box(&right)
}

fn katana_equal(left: &str, right: &str) -> bool {
    let key =
        |end| ApiKey::<Katana>::parse(&format!("0190b3c4-5d6e-7f80-9a1b-2c3d4e{end}")).expect("well-formed");
    let (left, right) = (key(left), key(right));
    make_undefined(left.expose_secret().as_bytes());
    make_undefined(right.expose_secret().as_bytes());
    black_box(&left) == black_box(&right)
}

fn matches(candidate: &str) -> bool {
    let (key, candidate) = (kanal(KEY), secret(candidate));
    black_box(&key).matches(black_box(&candidate))
}

fn raw_equal(right: &str) -> bool {
    let key = |text: &str| RawKey::parse(Kanal::PROFILE, text.as_bytes()).expect("well-formed");
    let (left, right) = (key(KEY), key(right));
    make_undefined(left.expose_secret().as_bytes());
    make_undefined(right.expose_secret().as_bytes());
    black_box(&left) == black_box(&right)
}

#[inline(never)]
fn early_exit(left: &[u8], right: &[u8]) -> bool {
    for (left, right) in left.iter().zip(right) {
        if left != right {
            return false;
        }
    }
    left.len() == right.len()
}

/// A key whose bytes memcheck takes for undefined from now on.
fn kanal(text: &str) -> ApiKey<Kanal> {
    let key = ApiKey::parse(text).expect("well-formed");
    make_undefined(key.expose_secret().as_bytes());
    key
}

/// Bytes that memcheck takes for undefined from now on.
fn secret(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes().to_vec();
    make_undefined(&bytes);
    bytes
}

// Requests of `valgrind.h` and `memcheck.h`.
const RUNNING_ON_VALGRIND: u64 = 0x1001;
const MAKE_MEM_UNDEFINED: u64 = 0x4d43_0001;
const MAKE_MEM_DEFINED: u64 = 0x4d43_0002;

/// The sequence that valgrind takes for a request; a processor does nothing by it.
#[cfg(target_arch = "x86_64")]
fn request(code: u64, address: u64, length: u64) -> u64 {
    let request = [code, address, length, 0, 0, 0];
    let mut answer = 0_u64;
    // SAFETY: rdi is turned by 128 bits in all and rbx changes places with itself; valgrind reads `request`,
    // writes rdx, and changes what it knows of the memory, not the memory.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") answer,
            options(nostack),
        );
    }
    answer
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: u64, _: u64, _: u64) -> u64 {
    panic!("P3 is proved on x86_64 only: valgrind's request has not been written for this architecture");
}

fn make_undefined(bytes: &[u8]) {
    request(MAKE_MEM_UNDEFINED, bytes.as_ptr() as u64, bytes.len() as u64);
}

/// The verdict is public once it is given.
fn declassify(mut verdict: bool) -> bool {
    request(MAKE_MEM_DEFINED, &raw mut verdict as u64, 1);
    black_box(verdict)
}

/// Runs one case, in a process that valgrind watches.
fn run(name: &str) {
    assert_ne!(request(RUNNING_ON_VALGRIND, 0, 0), 0, "this case does not run under valgrind");
    let case = CASES.iter().find(|case| case.name == name).expect("a case of that name");
    let verdict = declassify((case.run)());
    println!("verdict: {verdict}");
}

/// What is wrong with a case's outcome, if anything.
fn complaint(case: &Case) -> Option<String> {
    let output = Command::new("valgrind")
        .args(["-q", &format!("--error-exitcode={FOUND}")])
        .arg(std::env::current_exe().expect("the path of this program"))
        .args(["--case", case.name])
        .output()
        .unwrap_or_else(|error| panic!("valgrind was not started ({error}): install the package `valgrind`"));
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let verdict = text.contains(&format!("verdict: {}", case.verdict));
    let wanted = match case.expected {
        Expected::Constant => 0,
        Expected::Caught => FOUND,
    };
    let right = output.status.code() == Some(wanted) && verdict;
    (!right).then(|| format!("{}, {wanted} was expected\n{text}{errors}", output.status))
}

/// What is wrong with the outcome of each case. As many run at once as there are processors.
fn complaints() -> Vec<Option<String>> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    let all = |cases: &'static [Case]| cases.iter().map(complaint).collect::<Vec<_>>();
    thread::scope(|scope| {
        let parts: Vec<_> = CASES
            .chunks(CASES.len().div_ceil(at_once))
            .map(|cases| scope.spawn(move || all(cases)))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, name] = &arguments[..]
        && flag == "--case"
    {
        run(name);
        return ExitCode::SUCCESS;
    }
    if cfg!(debug_assertions) {
        println!("FAILED: a debug build says nothing about time: run this with --release");
        return ExitCode::FAILURE;
    }
    let mut failures = 0;
    for (case, complaint) in CASES.iter().zip(complaints()) {
        let what = if case.expected == Expected::Constant { "constant time" } else { "caught" };
        match complaint {
            None => println!("ok: {} ({what})", case.name),
            Some(complaint) => {
                failures += 1;
                println!("FAILED: {} (expected: {what}): {complaint}", case.name);
            }
        }
    }
    println!("{} cases under valgrind, {failures} failed", CASES.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
