//! The program, as a process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use keysheath::origin::Origin;

use super::http::{agent, send};
use super::support::{KEY, assert_nothing_of_in};

/// The program, running. It is ended when this is dropped.
struct Program {
    child: Child,
    lines: Vec<String>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        Self::of(command(arguments))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        while !lines.iter().any(|line: &String| line.ends_with("/journal")) {
            let mut line = String::new();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0, "it ended early: {lines:?}");
            lines.push(line.trim_end().to_owned());
        }
        Self { child, lines }
    }

    /// What follows a word at the start of a line.
    fn shown(&self, word: &str) -> &str {
        let line = self.lines.iter().find_map(|line| line.strip_prefix(word)).unwrap();
        line.split_whitespace().next().unwrap()
    }

    fn status(&self, path: &str, key: &str) -> u16 {
        let request = ureq::http::Request::get(format!("{}{path}", self.shown("url")))
            .header("authorization", format!("Bearer {key}"));
        send(&agent(None), request.body(String::new()).unwrap()).unwrap().status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keysheath-emulator"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

#[test]
fn it_prints_where_it_answers_and_one_key_that_works() {
    let program = Program::start(&["--store", "1001"]);
    let key = program.shown("key").to_owned();
    assert_eq!(program.status("/api/v1/stores/123/orders", &key), 200);
    assert_eq!(program.status("/api/v1/stores/1001/orders", &key), 200);
    assert_eq!(program.status("/api/v1/stores/456/orders", &key), 403);
    assert_eq!(program.status("/api/v1/stores/789/orders", &key), 404);
    assert_eq!(program.status("/api/v1/stores/123/orders", KEY), 401);
    let shown = program.lines.join("\n");
    assert_eq!(shown.matches(&key).count(), 1, "shown once: {shown}");

    let control: Origin = Origin::parse(program.shown("control")).unwrap();
    let request = ureq::http::Request::get(format!("{control}/journal"))
        .header("authorization", format!("Bearer {}", program.shown("token")));
    let journal = send(&agent(None), request.body(String::new()).unwrap()).unwrap();
    assert_eq!(journal.json()["journal"].as_array().unwrap().len(), 5);
}

#[test]
fn it_answers_as_katana_and_two_run_at_once() {
    let kanal = Program::start(&["--seed", "7"]);
    let katana = Program::start(&["katana", "--seed", "7", "--nested-errors", "--rate-limit"]);
    let (kanal_key, katana_key) = (kanal.shown("key"), katana.shown("key"));
    assert_eq!(kanal_key, katana_key, "a seed gives the same letters to both");
    assert_eq!(kanal.status("/api/v1/stores/123/orders", kanal_key), 200);
    assert_eq!(katana.status("/v1/products", katana_key), 200);
    assert_eq!(katana.status("/v1/products", KEY), 401);
}

#[cfg(unix)]
#[test]
fn it_ends_on_the_signals_that_end_a_process() {
    use std::os::unix::process::ExitStatusExt as _;
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        // Tests that a shell runs in the background inherit that they ignore some.
        let mut command = Command::new("env");
        command.arg(format!("--default-signal={name}")).arg(env!("CARGO_BIN_EXE_keysheath-emulator"));
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut program = Program::of(command);
        let sent = Command::new("kill").args(["-s", name, &program.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let start = Instant::now();
        let status = program.child.wait().unwrap();
        assert_eq!(status.signal(), Some(number));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn no_error_repeats_an_argument() {
    for arguments in [
        &[KEY][..],
        &["--port", KEY],
        &["--control-port", KEY],
        &["--seed", KEY],
        &["--store", KEY],
        &["--store", "0"],
        &["--port"],
        &["--port", "70000"],
        &[&format!("--{KEY}")],
        &[&format!("--rate-limit={KEY}")],
        &[&format!("-{KEY}")],
        &["kanal", KEY],
        &["kanal", "katana"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_nothing_of_in(KEY, &error);
        assert!(output.stdout.is_empty());
        assert!(error.contains("--help"), "{error}");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_that_says_so() {
    let program = Program::start(&[]);
    let port = Origin::parse(program.shown("url")).unwrap().port().to_string();
    let output = run(&["--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("a port on 127.0.0.1 cannot be had"), "{error}");
}

#[test]
fn its_help_lists_every_option_and_its_version_is_the_crates() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for option in
        ["--port", "--control-port", "--seed", "--store", "--rate-limit", "--nested-errors", "--tls"]
    {
        assert!(help.contains(option), "{option}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), concat!("keysheath-emulator ", env!("CARGO_PKG_VERSION")));
}

#[cfg(feature = "emulator-tls")]
#[test]
fn over_tls_it_prints_the_certificate_to_trust() {
    let mut child = command(&["--tls"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("-----END CERTIFICATE-----") {
        assert_ne!(reader.read_line(&mut shown).unwrap(), 0, "it ended early: {shown}");
    }
    let at = |word: &str| shown.lines().find_map(|line| line.strip_prefix(word)).unwrap().trim();
    let pem = &shown[shown.find("-----BEGIN").unwrap()..];
    let request = ureq::http::Request::get(format!("{}/api/v1/stores/123/orders", at("url")))
        .header("authorization", format!("Bearer {}", at("key").split(' ').next().unwrap()));
    let request = request.body(String::new()).unwrap();
    let trusted = send(&agent(Some(pem)), request.clone());
    let untrusted = send(&agent(None), request);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(trusted.unwrap().status, 200);
    assert!(untrusted.is_err(), "a client that does not trust it does not speak to it");
}
