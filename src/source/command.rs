//! The standard output of a program such as `pass`, `op` or `gcloud`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{self, Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroize;

use super::file::{self, MAX_SECRET_FILE};
use super::worker::{Permit, Place, Worker};
use super::{Problem, Provenance, Reading, SecretText, Source, SourceError};
use crate::issuer::{KNOWN, Profile};

/// How long the output may stay open after the program itself has ended.
const GRACE_AFTER_EXIT: Duration = Duration::from_millis(500);

/// How long to wait between two looks at whether the program has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How long a program may take to die.
const TIME_TO_KILL: Duration = Duration::from_millis(500);

/// Variables that hold keys, beside those of the issuers in this crate.
const KEY_VARIABLES: [&str; 1] = ["KATANA_API_TOKEN"];

/// A program that prints the key: an argument vector, and no shell.
///
/// One leading byte order mark and one final newline of its output are removed. It gets no standard input,
/// its standard error is thrown away, and the variables that are known to hold keys are not in its
/// environment. It runs in a process group of its own, so it cannot ask at the terminal: unlock what it needs
/// beforehand. At the deadline the whole group is killed; a program that cannot be, such as one of another user, is
/// left behind half a second later and counts as a call to it that hangs.
///
/// ```
/// use keysheath::{issuer::{Issuer, Kanal}, source::{self, Command, Loaded}};
///
/// # #[cfg(unix)] {
/// let source = Command::new("printf").args(["%s\n", "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"]);
/// assert!(matches!(source::load(&source, Kanal::PROFILE)?, Loaded::Found(_)));
/// # }
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[derive(Clone)]
pub struct Command {
    line: Arc<Line>,
    worker: Worker,
}

/// What is run. It is shared and not copied, because an argument may be a secret.
#[derive(Clone, Hash)]
struct Line {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Command {
    /// Runs `program`, which is looked up on `PATH` unless it has a separator in it.
    ///
    /// ```
    /// # use keysheath::source::Command;
    /// let source = Command::new("pass").args(["show", "shop/kanal"]);
    /// ```
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let line = Line { program: program.into(), arguments: Vec::new() };
        Self { line: Arc::new(line), worker: Worker::new() }
    }

    /// Adds arguments.
    ///
    /// ```
    /// # use keysheath::source::Command;
    /// let source = Command::new("op").args(["read", "op://shop/kanal/key"]);
    /// ```
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        Arc::make_mut(&mut self.line).arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// How long the program may take; 30 s unless set.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::source::Command;
    /// let source = Command::new("op").with_deadline(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    fn run(&self, profile: &'static Profile) -> Result<SecretText, Problem> {
        let (line, deadline) = (Arc::clone(&self.line), self.worker.deadline());
        let place = Place::of("command", &*self.line);
        self.worker.run_with(place, TIME_TO_KILL, move |permit| line.run(profile, deadline, permit))?
    }
}

impl Line {
    fn run(
        &self,
        profile: &Profile,
        deadline: Duration,
        permit: &Arc<Permit>,
    ) -> Result<SecretText, Problem> {
        let start = Instant::now();
        let mut child = self.spawn(profile)?;
        let text = output(&mut child, start, deadline, permit);
        if text.is_err() {
            kill(&mut child);
        }
        let text = text?.without_mark_and_newline();
        if text.bytes().is_empty() {
            return Err(Problem::Empty);
        }
        Ok(text)
    }

    fn spawn(&self, profile: &Profile) -> Result<Child, Problem> {
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        pass_environment(&mut command, profile);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(|error| Problem::NotStarted(error.kind()))
    }
}

/// Waits for the whole output and for a good end, both before the deadline.
fn output(
    child: &mut Child,
    start: Instant,
    deadline: Duration,
    permit: &Arc<Permit>,
) -> Result<SecretText, Problem> {
    let pipe = child.stdout.take().ok_or(Problem::Unreachable)?;
    let reader = permit.spawn(move || file::read_bounded(pipe, MAX_SECRET_FILE))?;
    let mut output = None;
    let mut ended = None;
    loop {
        if output.is_none() {
            match reader.recv_timeout(LOOK) {
                Ok(text) => output = Some(text?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Problem::Unreachable),
            }
        } else if ended.is_none() {
            thread::sleep(LOOK);
        }
        if ended.is_none() && has_succeeded(child)? {
            ended = Some(Instant::now());
        }
        match (&mut output, ended) {
            (Some(_), Some(_)) => {
                child.wait().map_err(|error| Problem::Unreadable(error.kind()))?;
                return output.ok_or(Problem::Unreachable);
            }
            (None, Some(end)) if end.elapsed() > GRACE_AFTER_EXIT => return Err(Problem::OutputHeld),
            _ if start.elapsed() > deadline => return Err(Problem::Deadline { after: deadline }),
            _ => {}
        }
    }
}

/// Hands the environment on without the variables that are known to hold keys. `env_remove` would leave their
/// values behind: the standard library then copies the whole environment into memory that it does not wipe.
fn pass_environment(command: &mut process::Command, profile: &Profile) {
    let issuers: Vec<&str> = KNOWN.iter().copied().chain([profile]).map(Profile::variable).collect();
    command.env_clear();
    for (name, value) in std::env::vars_os() {
        // Windows takes names that differ in case for the same.
        if !issuers.iter().chain(&KEY_VARIABLES).any(|known| name.eq_ignore_ascii_case(known)) {
            command.env(name, &value);
        }
        value.into_encoded_bytes().zeroize();
    }
}

/// Whether the program has ended, and well; it may still run.
///
/// It is not collected yet: until it is, its id stands for no other process, and that of its group for no
/// other group, so that what it left running can be ended.
#[cfg(unix)]
fn has_succeeded(child: &mut Child) -> Result<bool, Problem> {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(Pid::from_child(child)), options) {
        Ok(None) => Ok(false),
        Ok(Some(status)) => succeeded(status.exit_status()),
        Err(error) => Err(Problem::Unreadable(error.kind())),
    }
}

#[cfg(not(unix))]
fn has_succeeded(child: &mut Child) -> Result<bool, Problem> {
    match child.try_wait() {
        Ok(None) => Ok(false),
        Ok(Some(status)) => succeeded(status.code()),
        Err(error) => Err(Problem::Unreadable(error.kind())),
    }
}

/// A program without an exit status was ended by a signal.
const fn succeeded(code: Option<i32>) -> Result<bool, Problem> {
    match code {
        Some(0) => Ok(true),
        Some(code) => Err(Problem::Failed { code }),
        None => Err(Problem::Killed),
    }
}

/// Ends the program and what it started in its group, and collects it.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process_group};
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Source for Command {
    fn provenance(&self) -> Provenance {
        Provenance::Command { program: self.line.program.clone(), arguments: self.line.arguments.len() }
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        self.run(profile)
            .map(Reading::present)
            .map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

impl std::fmt::Debug for Command {
    /// Shows the program and the number of its arguments, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({})", self.provenance())
    }
}
