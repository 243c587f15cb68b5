//! The standard output of a program such as `pass`, `op` or `gcloud`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroize;

#[cfg(unix)]
use self::lifeline::Lifeline;
use super::env::similar_names;
use super::file::{self, MAX_SECRET_FILE};
use super::reading::has_nothing;
use super::{Problem, Provenance, Reading, Resource, Source, SourceError};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::{Caller, Target, Turn};
use crate::internal::files::{FileProblem, absolute};
use crate::key::Profile;
use crate::key::issuer::KNOWN;

/// How long the output may stay open after the program has ended.
const GRACE_AFTER_EXIT: Duration = Duration::from_millis(500);

/// The interval of checks whether the program has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How long a program may take to die.
const TIME_TO_KILL: Duration = Duration::from_millis(500);

/// Variables that hold secrets, in addition to those of the issuers. Their `_FILE` partners hold paths, which
/// a program may need.
const SECRET_VARIABLES: [&str; 6] = [
    "KATANA_API_TOKEN",
    "KATANA_CLIENT_SECRET",
    "KEYSHEATH_PEPPER",
    "KEYSHEATH_CONTROL_TOKEN",
    "BAO_TOKEN",
    "VAULT_TOKEN",
];

/// A program that prints the key: an argument vector, and no shell. One leading byte order mark and one final
/// newline of its output are removed. It gets no standard input, and its standard error is discarded.
///
/// - **Its environment** is this process's, without the variables that hold keys and tokens: those of the
///   issuers, `KATANA_API_TOKEN`, `KATANA_CLIENT_SECRET`, `KEYSHEATH_PEPPER`, `KEYSHEATH_CONTROL_TOKEN`,
///   `BAO_TOKEN` and `VAULT_TOKEN`. [`Command::with_variable`] keeps one of them.
/// - **It cannot prompt on the terminal**: it runs in its own process group, and is ended at once when it
///   tries ([`Problem::WantsTerminal`]). Unlock what it needs beforehand.
/// - **At the deadline** the whole group is killed. A program that cannot be killed, such as one of another
///   user, is abandoned half a second later and counts as a hanging call.
/// - **It does not outlive this process**: if there is a `/bin/sh`, one waits beside it and kills the group
///   once this process has ended, also by a signal. (Not on Windows. What a program starts in another group
///   is not reached.)
/// - **Its exit status must reach this process**: if `SIGCHLD` is ignored, or other code collects every
///   child, it is not known whether the program succeeded, and its output is not used
///   ([`Problem::ExitUnknown`]).
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{self, Command, Loaded};
///
/// # #[cfg(unix)] {
/// let source = Command::new("printf").args(["%s\n", "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"]);
/// assert!(matches!(source::load(&source, Kanal::PROFILE)?, Loaded::Found(_)));
/// # }
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[derive(Clone)]
pub struct Command {
    invocation: Arc<Invocation>,
    worker: Caller,
}

/// What is run. It is shared and not copied, because an argument may be a secret.
#[derive(Clone, Hash)]
struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
    passed: Vec<OsString>,
}

impl Command {
    /// Runs `program`, which is looked up on `PATH` unless it has a separator in it.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let (arguments, passed) = (Vec::new(), Vec::new());
        let invocation = Invocation { program: resolved(program.into()), arguments, passed };
        Self { invocation: Arc::new(invocation), worker: Caller::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        Arc::make_mut(&mut self.invocation).arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Keeps a variable in the program's environment although it holds a secret: `vault` and `bao` take their
    /// token from one.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<OsString>) -> Self {
        Arc::make_mut(&mut self.invocation).passed.push(name.into());
        self
    }

    /// Sets how long the program may take. The default is 30 s.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    fn run(&self, profile: &'static Profile) -> Result<WipedBytes, Problem> {
        let invocation = Arc::clone(&self.invocation);
        let place = Target::of("command", &*self.invocation);
        self.worker.run_with(place, TIME_TO_KILL, move |turn| invocation.run(profile, turn))?
    }
}

/// Resolves a relative path against the current working directory; a bare name is looked up on `PATH`.
fn resolved(program: PathBuf) -> PathBuf {
    if program.components().nth(1).is_some() || program.starts_with(".") {
        absolute(program)
    } else {
        program
    }
}

impl Invocation {
    fn run(&self, profile: &Profile, turn: &Turn) -> Result<WipedBytes, Problem> {
        let mut program = self.start(profile)?;
        let text = output(&mut program, turn);
        if text.is_err() {
            program.end();
        }
        let text = text?;
        if has_nothing(&text) {
            return Err(Problem::NoOutput);
        }
        Ok(text)
    }

    fn start(&self, profile: &Profile) -> Result<Program, Problem> {
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.pass_environment(&mut command, profile);
        Program::start(&mut command).map_err(|error| not_started(&self.program, &error))
    }

    /// Passes the environment without the variables that are known to hold keys. `env_remove` would leave
    /// their values behind: the standard library then copies the whole environment into memory that it does
    /// not wipe.
    fn pass_environment(&self, command: &mut process::Command, profile: &Profile) {
        let issuers = KNOWN.iter().copied().chain([profile]).map(Profile::variable);
        // A key under a similar name is a key too.
        let secrets: Vec<String> =
            issuers.flat_map(|name| similar_names(name).into_iter().chain([name.to_owned()])).collect();
        let is_secret = |name: &OsStr| {
            // On Windows, names that differ in case are the same.
            let same = |secret: &str| name.eq_ignore_ascii_case(secret);
            secrets.iter().any(|secret| same(secret)) || SECRET_VARIABLES.iter().any(|secret| same(secret))
        };
        command.env_clear();
        for (name, value) in std::env::vars_os() {
            if !is_secret(&name) || self.passed.contains(&name) {
                command.env(name, &value);
            }
            value.into_encoded_bytes().zeroize();
        }
    }
}

/// Waits for the whole output and for success, both within the deadline.
fn output(program: &mut Program, turn: &Turn) -> Result<WipedBytes, Problem> {
    let pipe = program.take_output().ok_or(Problem::Unreachable)?;
    let reader = turn.spawn(move || file::read_bounded(pipe, MAX_SECRET_FILE))?;
    let mut output = None;
    let mut ended = None;
    loop {
        if output.is_none() {
            match reader.recv_timeout(LOOK) {
                Ok(text) => {
                    output = Some(text.map_err(|problem| match problem {
                        FileProblem::TooLarge { limit } => Problem::TooLarge { limit },
                        problem => Problem::File(problem),
                    })?);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Problem::Unreachable),
            }
        } else if ended.is_none() {
            thread::sleep(LOOK);
        }
        if ended.is_none() && program.has_succeeded()? {
            ended = Some(Instant::now());
        }
        match (&mut output, ended) {
            (Some(_), Some(_)) => {
                program.collect();
                return output.ok_or(Problem::Unreachable);
            }
            (None, Some(end)) if end.elapsed() > GRACE_AFTER_EXIT => return Err(Problem::OutputHeld),
            _ if turn.rest().is_zero() => return Err(turn.too_late().into()),
            _ => {}
        }
    }
}

impl Source for Command {
    fn provenance(&self) -> Provenance {
        Provenance::Command {
            program: self.invocation.program.clone(),
            arguments: self.invocation.arguments.len(),
        }
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        self.run(profile)
            .map(Reading::of_wiped)
            .map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

impl std::fmt::Debug for Command {
    /// Shows the program and the number of its arguments, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({})", self.provenance())
    }
}

/// A program that was started, in a process group of its own. It is observed and ended only while it is a
/// child of this process: once other code has collected it, its process id may belong to another process.
struct Program {
    child: Child,
    /// Identifies this process and no other, if the kernel supports it.
    #[cfg(target_os = "linux")]
    handle: Option<std::os::fd::OwnedFd>,
    #[cfg(unix)]
    _lifeline: Lifeline,
}

impl Program {
    fn start(command: &mut process::Command) -> io::Result<Self> {
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

    fn take_output(&mut self) -> Option<ChildStdout> {
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
        pub(super) fn has_succeeded(&mut self) -> Result<bool, Problem> {
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
        pub(super) fn collect(&mut self) {
            let _ = self.wait(WaitIdOptions::EXITED);
        }

        /// Ends the program and its group, and collects it.
        pub(super) fn end(mut self) {
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
    fn has_succeeded(&mut self) -> Result<bool, Problem> {
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
    fn collect(&mut self) {
        let _ = self.child.wait();
    }

    /// Ends the program, and collects it.
    fn end(mut self) {
        let _ = self.child.kill();
        self.collect();
    }
}

/// Why a program was not started, and what to do.
#[cfg(unix)]
fn not_started(program: &Path, error: &io::Error) -> Problem {
    use rustix::io::Errno;

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
fn not_started(_: &Path, error: &io::Error) -> Problem {
    Resource::of(error).map_or_else(|| Problem::NotStarted(error.kind()), Problem::Exhausted)
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
