//! A running program. It is observed and ended only while it is a child of this process: once other code has
//! collected it, its process id may belong to another process.

use std::io;
use std::path::Path;
use std::process::{Child, ChildStdout, Command};

#[cfg(unix)]
use self::lifeline::Lifeline;
use crate::source::Problem;

/// A program that was started, in a process group of its own.
pub(super) struct Program {
    child: Child,
    /// Identifies this process and no other, if the kernel supports it.
    #[cfg(target_os = "linux")]
    handle: Option<std::os::fd::OwnedFd>,
    #[cfg(unix)]
    _lifeline: Lifeline,
}

impl Program {
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        {
            std::os::unix::process::CommandExt::process_group(command, 0);
            let mut lifeline = Lifeline::start();
            let child = command.spawn()?;
            lifeline.hold(&child);
            Ok(Self {
                #[cfg(target_os = "linux")]
                handle: {
                    use rustix::process::{Pid, PidfdFlags, pidfd_open};
                    // Not before Linux 5.3, nor where it is filtered. Waiting shows whether it is our child.
                    pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok()
                },
                child,
                _lifeline: lifeline,
            })
        }
        #[cfg(not(unix))]
        Ok(Self { child: command.spawn()? })
    }

    pub(super) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }
}

/// The life of a program, tied to that of this process.
///
/// A process that is killed cannot end what it started. Linux can do so itself (`PR_SET_PDEATHSIG`), but only
/// for code that runs between fork and exec, which is unsafe, and only until the *thread* that started it
/// ends. So a shell waits beside the program, on a pipe that the kernel closes when this process ends for any
/// reason.
#[cfg(unix)]
mod lifeline {
    use std::io::Write as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    /// Reads the group to end, then waits for a second line. If that does not come, the process that would
    /// write it has ended. Without a group it exits. It has built-in commands only, so nothing is looked up.
    const SCRIPT: &str = "trap '' HUP INT QUIT TERM; read -r group || exit 0; read -r end && exit 0; \
        kill -s KILL -- \"-${group:?}\"";

    /// Ends a process group when this process ends, unless it is dropped earlier.
    pub(super) struct Lifeline(Option<Child>);

    impl Lifeline {
        /// Starts the shell, before there is anything to end. Without a shell, nothing is tied.
        pub(super) fn start() -> Self {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", SCRIPT]).env_clear().current_dir("/").process_group(0);
            shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            Self(shell.spawn().ok())
        }

        /// Ties the group of a program that was just started.
        pub(super) fn hold(&mut self, program: &Child) {
            self.write(&format!("{}\n", program.id()));
        }

        fn write(&mut self, line: &str) {
            if let Some(pipe) = self.0.as_mut().and_then(|shell| shell.stdin.as_mut()) {
                // The shell may have ended.
                let _ = pipe.write_all(line.as_bytes());
            }
        }
    }

    impl Drop for Lifeline {
        fn drop(&mut self) {
            self.write("\n");
            if let Some(mut shell) = self.0.take() {
                drop(shell.stdin.take());
                // It exits by itself; other code may have collected it.
                let _ = shell.wait();
            }
        }
    }
}

#[cfg(unix)]
mod unix {
    use rustix::io::Errno;
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};

    use super::{Problem, Program};

    /// Checks without waiting and without collecting. Until a program is collected, its id belongs to no
    /// other process, and its group's id to no other group, so what it left running can be ended.
    const LOOK: WaitIdOptions =
        WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT);

    impl Program {
        fn id(&self) -> WaitId<'_> {
            #[cfg(target_os = "linux")]
            if let Some(handle) = &self.handle {
                return WaitId::PidFd(std::os::fd::AsFd::as_fd(handle));
            }
            WaitId::Pid(Pid::from_child(&self.child))
        }

        fn wait(&self, options: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
            rustix::io::retry_on_intr(|| waitid(self.id(), options))
        }

        /// Whether the program has ended successfully; it may still run.
        pub(in crate::source::command) fn has_succeeded(&mut self) -> Result<bool, Problem> {
            let status = match self.wait(LOOK | WaitIdOptions::STOPPED) {
                Ok(Some(status)) => status,
                Ok(None) => return Ok(false),
                Err(Errno::CHILD) => return Err(Problem::ExitUnknown),
                Err(_) => return Err(Problem::Unreachable),
            };
            if let Some(signal) = status.stopping_signal() {
                // A program that another process stopped may continue.
                let by_terminal = [Signal::TTIN, Signal::TTOU].map(Signal::as_raw).contains(&signal);
                return if by_terminal { Err(Problem::WantsTerminal) } else { Ok(false) };
            }
            match status.exit_status() {
                Some(0) => Ok(true),
                Some(code) => Err(Problem::Failed { code }),
                // Without an exit status, a signal ended the program.
                None => Err(Problem::Killed),
            }
        }

        /// Collects a program that has ended.
        pub(in crate::source::command) fn collect(&mut self) {
            let _ = self.wait(WaitIdOptions::EXITED);
        }

        /// Ends the program and its group, and collects it.
        pub(in crate::source::command) fn end(mut self) {
            // A program that other code has collected is left alone, and so is its group.
            if self.wait(LOOK).is_ok() {
                let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
                self.kill();
                self.collect();
            }
        }

        #[cfg(target_os = "linux")]
        fn kill(&mut self) {
            match &self.handle {
                Some(handle) => drop(rustix::process::pidfd_send_signal(handle, Signal::KILL)),
                None => drop(self.child.kill()),
            }
        }

        #[cfg(not(target_os = "linux"))]
        fn kill(&mut self) {
            let _ = self.child.kill();
        }
    }
}

#[cfg(not(unix))]
impl Program {
    /// Whether the program has ended successfully; it may still run.
    pub(super) fn has_succeeded(&mut self) -> Result<bool, Problem> {
        match self.child.try_wait() {
            Ok(None) => Ok(false),
            Ok(Some(status)) => match status.code() {
                Some(0) => Ok(true),
                Some(code) => Err(Problem::Failed { code }),
                None => Err(Problem::Killed),
            },
            Err(_) => Err(Problem::Unreachable),
        }
    }

    /// Collects a program that has ended.
    pub(super) fn collect(&mut self) {
        let _ = self.child.wait();
    }

    /// Ends the program, and collects it.
    pub(super) fn end(mut self) {
        let _ = self.child.kill();
        self.collect();
    }
}

/// Why a program was not started, and what to do.
#[cfg(unix)]
pub(super) fn not_started(program: &Path, error: &io::Error) -> Problem {
    use rustix::io::Errno;

    use crate::source::Resource;

    if let Some(resource) = Resource::of(error) {
        return Problem::Exhausted(resource);
    }
    let there = find(program);
    let rule = match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => return Problem::Exhausted(Resource::Processes),
        Some(Errno::NOEXEC) => {
            "it is not a program for this machine, and no `#!` line names its interpreter: add that line, or \
             run the interpreter with the file as an argument"
        }
        Some(Errno::NOENT) if there.is_some() => {
            "the interpreter of its `#!` line, or the loader that it was built for, does not exist: install \
             it, or correct the line (a line that ends in CR and LF names another file)"
        }
        Some(Errno::ACCESS) => match there {
            Some(there) if there.is_dir() => "it is a directory: name the program in it",
            Some(there) if rustix::fs::access(&*there, rustix::fs::Access::EXEC_OK).is_err() => {
                "this user may not execute it: `chmod +x` it, and check that its disk is not mounted noexec"
            }
            Some(_) => {
                "this user may not execute the interpreter of its `#!` line: correct the line, or the \
                 interpreter's mode"
            }
            None => return Problem::NotStarted(error.kind()),
        },
        Some(Errno::TXTBSY) => "it is being written: try again once it is installed",
        Some(Errno::TOOBIG) => "its arguments and environment are too long: shorten them",
        _ => return Problem::NotStarted(error.kind()),
    };
    Problem::NotRunnable { rule }
}

#[cfg(not(unix))]
pub(super) fn not_started(_: &Path, error: &io::Error) -> Problem {
    crate::source::Resource::of(error).map_or_else(|| Problem::NotStarted(error.kind()), Problem::Exhausted)
}

/// The file that is found for the program.
#[cfg(unix)]
fn find(program: &Path) -> Option<std::path::PathBuf> {
    if program.as_os_str().is_empty() {
        return None;
    }
    if program.components().count() > 1 || program.is_absolute() {
        return program.exists().then(|| program.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.exists())
}
