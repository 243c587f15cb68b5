//! The standard output of a program such as `pass`, `op` or `gcloud`.

mod program;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroize;

use super::env::similar_names;
use super::file::{self, MAX_SECRET_FILE};
use super::text::has_nothing;
use super::{Problem, Provenance, Reading, Source, SourceError};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::{Caller, Target, Turn};
use crate::internal::files::{FileProblem, absolute};
use crate::key::Profile;
use crate::key::issuer::KNOWN;
use program::Program;

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
    line: Arc<Line>,
    worker: Caller,
}

/// What is run. It is shared and not copied, because an argument may be a secret.
#[derive(Clone, Hash)]
struct Line {
    program: PathBuf,
    arguments: Vec<OsString>,
    passed: Vec<OsString>,
}

impl Command {
    /// Runs `program`, which is looked up on `PATH` unless it has a separator in it.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let line = Line { program: resolved(program.into()), arguments: Vec::new(), passed: Vec::new() };
        Self { line: Arc::new(line), worker: Caller::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        Arc::make_mut(&mut self.line).arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Keeps a variable in the program's environment although it holds a secret: `vault` and `bao` take their
    /// token from one.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<OsString>) -> Self {
        Arc::make_mut(&mut self.line).passed.push(name.into());
        self
    }

    /// Sets how long the program may take. The default is 30 s.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    fn run(&self, profile: &'static Profile) -> Result<WipedBytes, Problem> {
        let line = Arc::clone(&self.line);
        let place = Target::of("command", &*self.line);
        self.worker.run_with(place, TIME_TO_KILL, move |turn| line.run(profile, turn))?
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

impl Line {
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
        Program::start(&mut command).map_err(|error| program::not_started(&self.program, &error))
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
        Provenance::Command { program: self.line.program.clone(), arguments: self.line.arguments.len() }
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
