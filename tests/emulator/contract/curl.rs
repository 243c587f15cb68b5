//! The program `curl`, which knows nothing of this crate.

use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command, Stdio};

use keysheath::emulator::Emulator;

use super::suite::{Answer, Ask, Keys, Server};
use super::wire::read_answer;

pub(crate) struct Curl {
    origin: String,
    keys: Keys,
}

impl Curl {
    pub(crate) fn new(emulator: &Emulator) -> Self {
        Self { origin: emulator.origin().to_string(), keys: Keys::of(emulator.registry()) }
    }
}

impl Server for Curl {
    fn ask(&self, ask: &Ask) -> Answer {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--include",
            "--http1.1",
            "--path-as-is",
            "--max-time",
            "20",
        ]);
        command.args(["--noproxy", "*", "--request", ask.method, "--data-binary", "@-"]);
        // What curl adds by itself goes; a header with a space before its value is sent as it is.
        for name in ["content-type", "accept", "expect"] {
            command.args(["--header", &format!("{name}:")]);
        }
        for (name, value) in &ask.headers {
            let header = [name.as_bytes(), b": ", value].concat();
            command.arg("--header").arg(std::ffi::OsString::from_vec(header));
        }
        let mut child = command
            .arg(format!("{}{}", self.origin, ask.path))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program curl runs (Debian's curl)");
        child.stdin.take().unwrap().write_all(&ask.body).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read_answer(&output.stdout)
    }

    fn keys(&self) -> &Keys {
        &self.keys
    }
}
