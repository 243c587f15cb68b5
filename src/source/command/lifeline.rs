//! The life of a program, tied to that of this process.
//!
//! A process that is killed cannot end what it has started. Linux can do so by itself (`PR_SET_PDEATHSIG`), but only for what
//! runs code of ours between fork and exec, which is unsafe, and only until the *thread* that started it ends. So a shell waits
//! beside the program, on a pipe that the kernel closes when this process ends, however that is.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// Reads the group to end, then waits for a second line. Where that does not come, the process that would have written it is
/// gone. Without a group it ends. Only built-in commands, so nothing is looked up.
const SCRIPT: &str = "trap '' HUP INT QUIT TERM; read -r group || exit 0; read -r end && exit 0; kill -s KILL -- \"-${group:?}\"";

/// Ends a process group when this process ends, unless it is dropped before.
pub(super) struct Lifeline(Option<Child>);

impl Lifeline {
    /// Starts the shell, before there is anything to end. Where there is none, nothing is tied.
    pub(super) fn start() -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SCRIPT]).env_clear().current_dir("/").process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(shell.spawn().ok())
    }

    /// Ties the group of a program that was started just now.
    pub(super) fn hold(&mut self, program: &Child) {
        self.write(&format!("{}\n", program.id()));
    }

    fn write(&mut self, line: &str) {
        if let Some(pipe) = self.0.as_mut().and_then(|shell| shell.stdin.as_mut()) {
            // A shell that has died is none to write to.
            let _ = pipe.write_all(line.as_bytes());
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.write("\n");
        if let Some(mut shell) = self.0.take() {
            drop(shell.stdin.take());
            // It ends by itself; another may have collected it.
            let _ = shell.wait();
        }
    }
}
