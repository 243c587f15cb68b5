//! The program, as a process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use keysheath::key::Origin;

use crate::support::http::{agent, send};
use crate::support::{KEY, assert_nothing_of_in};

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

/// Runs the program to its end. One that serves in place of ending is ended, with status 124.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_keysheath-emulator")]).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn it_prints_where_it_answers_and_one_key_that_works() {
    let program = Program::start(&["--store", "1001"]);
    let stores: Vec<&str> =
        program.lines.iter().skip_while(|line| !line.starts_with("stores")).take(3).map(|s| &**s).collect();
    assert_eq!(
        stores,
        [
            "stores   123 1001  (the key's)",
            "         456  (another team's)",
            "         789  (the key's, paused)",
        ]
    );
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
fn the_stores_that_are_printed_are_those_that_there_are() {
    let program = Program::start(&["--store", "456", "--store", "789", "--store", "7", "--store", "7"]);
    let key = program.shown("key").to_owned();
    let statuses =
        [123, 456, 7, 789].map(|store| program.status(&format!("/api/v1/stores/{store}/orders"), &key));
    assert_eq!(statuses, [200, 200, 200, 404]);
    let shown = program.lines.join("\n");
    assert!(
        shown.contains("stores   7 123 456  (the key's)\n         789  (the key's, paused)\n"),
        "{shown}"
    );
    assert!(!shown.contains("another team"), "{shown}");
}

/// The one line of JSON that a program prints, and the program.
fn start_as_json(arguments: &[&str]) -> (Program, serde_json::Value) {
    let mut child = command(arguments).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let shown = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    (Program { child, lines: Vec::new() }, shown)
}

#[test]
fn a_test_in_another_language_reads_one_line_of_json() {
    let (_program, shown) = start_as_json(&["--store", "7", "--key", KEY]);
    let at = |name: &str| shown[name].as_str().unwrap_or_else(|| panic!("{name}: {shown}")).to_owned();
    assert_eq!((at("issuer"), at("key")), ("kanal".to_owned(), KEY.to_owned()));
    assert_eq!(at("fingerprint"), "urdz-nrsd-3rmw-jtz2");
    assert_eq!(shown["stores"], serde_json::json!({ "own": [7, 123], "foreign": [456], "paused": [789] }));
    assert_eq!(shown["certificate"], serde_json::Value::Null);
    let ask = |method: &str, url: String, key: &str| {
        let request = ureq::http::Request::builder().method(method).uri(url);
        let request = request.header("authorization", format!("Bearer {key}"));
        send(&agent(None), request.body(String::new()).unwrap()).unwrap().status
    };
    let orders = format!("{}/api/v1/stores/7/orders", at("url"));
    assert_eq!(ask("GET", orders.clone(), KEY), 200);
    let own = format!("{}/keys/{}", at("control_url"), at("key_id"));
    assert_eq!(ask("DELETE", own, &at("control_token")), 204);
    assert_eq!(ask("GET", orders, KEY), 401);

    let (_program, shown) = start_as_json(&["katana", "--key", "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071"]);
    assert_eq!((&shown["issuer"], &shown["stores"]), (&"katana".into(), &serde_json::Value::Null));
    assert_eq!(shown["key"], "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071");
    #[cfg(feature = "emulator-tls")]
    {
        let (_program, shown) = start_as_json(&["--tls"]);
        assert!(shown["url"].as_str().unwrap().starts_with("https://127.0.0.1:"));
        assert!(shown["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    }
}

#[test]
fn options_that_do_not_apply_are_refused() {
    for (arguments, why) in [
        (&["--nested-errors"][..], "--nested-errors is for Katana"),
        (&["kanal", "--nested-errors"], "--nested-errors is for Katana"),
        (&["katana", "--store", "7"], "--store is for Kanal"),
        (&["--store", "7", "katana"], "--store is for Kanal"),
        (&["--port", "1", "--port", "2"], "--port is a number from 0 to 65535, once"),
        (&["--key", KEY, "--key", KEY], "--key is a key, once"),
        (&["katana", "--key", "short"], "--key is not a key of Katana: 16 to 512"),
        (&["--key", "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071"], "--key is not a key of Kanal: 24 of A-Z"),
        (&["--key"], "--key is a key"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(why), "{arguments:?}: {error}");
        assert_nothing_of_in(KEY, &error);
        assert!(output.stdout.is_empty());
    }
}

/// In a container it is process 1, which the kernel sends no signal that it has not asked for.
#[cfg(target_os = "linux")]
#[test]
fn as_the_first_process_it_ends_on_the_usual_signals() {
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3)] {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            env!("CARGO_BIN_EXE_keysheath-emulator"),
        ]);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut program = Program::of(command);
        let parent = program.child.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let sent = Command::new("kill").args(["-s", name, children.trim()]).status();
        assert!(sent.unwrap().success());
        let until = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = program.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it still runs after SIG{name}");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(128 + number), "SIG{name}");
    }
}

#[test]
fn no_error_repeats_an_argument() {
    for arguments in [
        &[KEY][..],
        &["--port", KEY],
        &["--control-port", KEY],
        &["--seed", KEY],
        &["--key", &KEY[1..]],
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
    assert!(error.contains("a port on 127.0.0.1 cannot be bound"), "{error}");
}

#[test]
fn its_help_lists_every_option_and_its_version_is_the_crates() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for option in [
        "--port",
        "--control-port",
        "--key",
        "--seed",
        "--store",
        "--rate-limit",
        "--nested-errors",
        "--tls",
        "--json",
    ] {
        assert!(help.contains(&format!("\n  {option}")), "{option}");
    }
    // Every path of the control plane and every field of a fault rule, as their sources have them.
    let path = format!("{}/src/emulator/control.rs", env!("CARGO_MANIFEST_DIR"));
    let control = std::fs::read_to_string(path).unwrap();
    let routes: Vec<&str> =
        control.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(routes.len() >= 9, "{routes:?}");
    assert!(routes.iter().all(|route| help.contains(route)), "{routes:?}");
    let fields = control
        .split("const RULE_FIELDS")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2);
    for field in fields.chain(["status", "retry_after", "body", "latency_ms", "reset", "truncated_body"]) {
        assert!(help.contains(&format!("\"{field}\"")), "{field}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "it fits a wide terminal");
    assert!(help.contains("content-type: application/json"), "what has a body says what it is");
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

#[test]
fn a_key_that_was_given_is_not_called_made_up() {
    let words = |arguments: &[&str]| {
        let program = Program::start(arguments);
        let line = program.lines.iter().find(|line| line.starts_with("key ")).unwrap();
        line.split_once('(').unwrap().1.to_owned()
    };
    assert!(words(&[]).starts_with("for this run only"));
    assert_eq!(words(&["--key", KEY]), "given by --key)");
}
