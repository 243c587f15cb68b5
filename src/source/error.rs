//! What can be wrong with a source, and what to do.

use std::time::Duration;
use std::{fmt, io};

use super::{Absence, Provenance};
use crate::internal::calls::CallError;
use crate::internal::files::FileProblem;
use crate::internal::printing::Printable;
use crate::key::{FormatError, Hint};
#[cfg(feature = "openbao")]
use crate::openbao::OpenBaoError;

/// A key could not be loaded from a source: where, what is wrong, and what to do next.
///
/// It holds no byte of what was read, and no error of another library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provenance}: {problem}")]
pub struct SourceError {
    provenance: Provenance,
    problem: Problem,
}

impl SourceError {
    /// Creates an error of a source of your own.
    #[must_use]
    pub const fn new(provenance: Provenance, problem: Problem) -> Self {
        Self { provenance, problem }
    }

    /// Returns the place.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns what is wrong.
    #[must_use]
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoThread => Self::Exhausted(Resource::Threads),
            CallError::Panicked => Self::Unreachable,
            error => Self::Call(error),
        }
    }
}

impl From<FileProblem> for Problem {
    fn from(problem: FileProblem) -> Self {
        Self::File(problem)
    }
}

/// The end of a message about the file of a source: that its owner or group can be trusted.
struct TrustAdvice(FileProblem);

impl fmt::Display for TrustAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.other_way().fmt(f)?;
        match self.0 {
            FileProblem::ForeignOwner { uid } => write!(f, ", in a reference to a file ?owner={uid}"),
            FileProblem::WritableByGroup { gid, .. } => write!(f, ", in a reference to a file ?group={gid}"),
            _ => Ok(()),
        }
    }
}

impl Problem {
    /// Whether the place could not be asked, so that nothing is known of what it holds.
    pub(crate) const fn is_unasked(&self) -> bool {
        matches!(
            self,
            Self::NoKeychain
                | Self::NotBuilt { .. }
                | Self::NoAccess
                | Self::Call(_)
                | Self::Slow { .. }
                | Self::Exhausted(_)
                | Self::Unreachable
        )
    }
}

/// What is wrong with a source, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is not a well-formed key.
    #[error("{0}")]
    Malformed(FormatError),
    /// A file, an output or an item exists and is empty.
    #[error("it exists and is empty: write the key into it, or remove it")]
    Empty,
    /// The text is not base64.
    #[error(
        "it is not base64 (standard alphabet, padded, on one line, nothing after it): \
         encode it with `base64 -w0`, or remove the encoding"
    )]
    NotBase64,
    /// A variable and its `_FILE` partner are both set.
    #[error("{0} and {0}_FILE are both set, and may differ: unset one of them", Printable(.variable))]
    BothSet {
        /// The variable without `_FILE`.
        variable: String,
    },
    /// A place that is [required](crate::source::Source::required), as one that a key reference or
    /// `with_dotenv` names, has nothing.
    #[error("{absence}, and it was named as the place of the key: put the key there, or name another place")]
    Missing {
        /// Why there is nothing.
        absence: Absence,
    },
    /// The text is not a JSON object, and a field of one is needed.
    #[error("it is not a JSON object, so it has no fields: give the key alone, or correct the JSON")]
    NotJson,
    /// The JSON object does not have the field.
    #[error("its JSON has no field {}: name the field that holds the key", Printable(.name))]
    NoField {
        /// The field.
        name: String,
    },
    /// The JSON object has the field twice.
    #[error("its JSON has the field {} twice: remove one of them", Printable(.name))]
    FieldTwice {
        /// The field.
        name: String,
    },
    /// The field of the JSON object is not a string.
    #[error("the field {} of its JSON is not a string: name the field that holds the key", Printable(.name))]
    FieldNotText {
        /// The field.
        name: String,
    },
    /// The text has fewer lines.
    #[error("it has {lines} lines, and line {line} was requested (the first is 1): name the line of the key")]
    NoLine {
        /// The requested line, counted from 1.
        line: usize,
        /// How many there are.
        lines: usize,
    },
    /// The text is a credential that systemd has encrypted.
    #[error(
        "it is a credential that systemd has encrypted: pass it to the service with LoadCredentialEncrypted= \
         (or SetCredentialEncrypted=) in place of LoadCredential=, and read it as a systemd credential"
    )]
    EncryptedCredential,
    /// The text is a key reference and not a key.
    #[error(
        "it holds a reference ({scheme}:…) in place of a key, and a reference is resolved only where one is \
         expected: put the key itself here, or give the reference to the program's own setting"
    )]
    Reference {
        /// The scheme.
        scheme: &'static str,
    },
    /// The text has the form of another issuer's key.
    #[error("it has the form of a {other} key, and a {wanted} key belongs here: copy the {wanted} key")]
    OtherIssuer {
        /// Whose key it seems to be.
        other: &'static str,
        /// Whose key belongs here.
        wanted: &'static str,
    },
    /// The path is not possible here.
    #[error("the path is not valid here: {rule}")]
    BadPath {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A `…_FILE` variable names a file that does not exist.
    #[error("there is no such file: mount it, or unset the variable that names it")]
    FileGone,
    /// A pipe ended without any text.
    #[error(
        "it is a pipe that gave nothing: check what writes to it; a pipe gives its text once, so read it once"
    )]
    EmptyPipe,
    /// Something is wrong with the file.
    #[error("{0}{advice}", advice = TrustAdvice(*.0))]
    File(FileProblem),
    /// What the program printed is larger than any key.
    #[error(
        "it printed more than {limit} bytes, so it is not a key: name the command that prints the key alone"
    )]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A `.env` is not text.
    #[error("it cannot be read as lines of text: {hint}")]
    NotText {
        /// What its bytes suggest.
        hint: Hint,
    },
    /// A line of a `.env` that sets the variable, or may do so, gives no value.
    #[error("line {line} {fault} (the line is not shown: it may hold a secret)")]
    BadLine {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// A `.env` sets the variable twice.
    #[error("it is set on line {first} and again on line {second}: remove one of them")]
    Duplicate {
        /// The first line.
        first: usize,
        /// The second line.
        second: usize,
    },
    /// The operating system has run out of something that the call needs.
    #[error("the operating system has no {0}")]
    Exhausted(Resource),
    /// The program exists and cannot be run.
    #[error("it cannot be run: {rule}")]
    NotRunnable {
        /// Why it cannot be run, and what to do.
        rule: &'static str,
    },
    /// The program could not be started.
    #[error("it could not be started ({0}): check that the program is installed and on PATH")]
    NotStarted(io::ErrorKind),
    /// The program failed.
    #[error("it failed with exit status {code}; its output was discarded: run it by hand to see why")]
    Failed {
        /// The exit status.
        code: i32,
    },
    /// The program succeeded and printed nothing.
    #[error(
        "it printed nothing on its standard output: run it by hand, and give it the arguments that print the \
         key"
    )]
    NoOutput,
    /// The program tried to read from the terminal or to change it, and was ended.
    #[error(
        "it tried to prompt on the terminal, which is not allowed (it was ended): unlock it beforehand, or \
         let it ask in a window"
    )]
    WantsTerminal,
    /// The program ended, and its exit status did not reach this process.
    #[error(
        "it ended, and its exit status did not reach this process, so it is not known whether it succeeded: \
         this process ignores SIGCHLD (start it with `env --default-signal=CHLD`), or something in it \
         collects every child (let it collect only its own)"
    )]
    ExitUnknown,
    /// A signal ended the program.
    #[error("it was ended by a signal; its output was discarded: run it by hand to see why")]
    Killed,
    /// The program ended, and something that it started keeps its output open.
    #[error(
        "it ended, and something that it started keeps its output open, so the output may be incomplete: \
         let the command wait for what it starts"
    )]
    OutputHeld,
    /// A file or a pipe was not read within the deadline.
    #[error(
        "it was not read within {} ms: check the disk or the network mount, or what writes to the pipe, or \
         raise the deadline", .after.as_millis()
    )]
    Slow {
        /// The deadline.
        after: Duration,
    },
    /// The call gave no result: it hung, or waited too long for its turn.
    #[error("{0}")]
    Call(CallError),
    /// No keychain service answers.
    #[error(
        "no keychain answers: on Linux a Secret Service (such as gnome-keyring) must run on the session bus \
         that DBUS_SESSION_BUS_ADDRESS names; where there is none, keep the key in a file or a systemd \
         credential"
    )]
    NoKeychain,
    /// The place is one that this build cannot read.
    #[error("this build cannot read it, because the feature `{feature}` of keysheath is off: enable it")]
    #[non_exhaustive]
    NotBuilt {
        /// The feature.
        feature: &'static str,
    },
    /// The keychain refuses to read or write the item.
    #[error(
        "the keychain refuses access: one of its collections is locked, or it has no default collection; \
         unlock or create it (an item that is not found may be in any locked collection)"
    )]
    NoAccess,
    /// Several items match.
    #[error(
        "{count} items in the keychain match, from this tool or another one: keep one with \
         `Keychain::keep_one`, or delete the others in the keychain's own window. (`secret-tool clear` with \
         the service and the name alone deletes all of them; name an attribute that only the unwanted one \
         has, such as `application` or `xdg:schema`.)"
    )]
    Ambiguous {
        /// The number of them.
        count: usize,
    },
    /// The keychain cannot store such an item.
    #[error("the keychain cannot store such a service, name or value: use shorter, plain names")]
    NotStorable,
    /// OpenBao gave no secret.
    #[cfg(feature = "openbao")]
    #[error("{0}")]
    OpenBao(Box<OpenBaoError>),
    /// The place did not answer for another reason.
    #[error("it did not answer: check that it runs and can be reached")]
    Unreachable,
}

/// Why a line of a `.env` gives no value: programs disagree about it, or none reads a key from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LineFault {
    /// No `=` follows the name.
    #[error("has the name and no `=` after it: write NAME=value, or remove the line")]
    NoEquals,
    /// It is a key without a name.
    #[error("looks like a key without a name: write its NAME= before it, or remove the line")]
    NoName,
    /// The name is in quotation marks.
    #[error("has the name in quotation marks, which not every program removes: write the name without them")]
    QuotedName,
    /// `export` is not followed by exactly one space.
    #[error("does not have exactly one plain space after `export`: write `export NAME=value`")]
    Export,
    /// A character ends the line for some programs and not for others.
    #[error(
        "holds a character that ends a line for some programs only (CR alone, VT, FF, U+0085, U+2028 or \
         U+2029): save the file with LF at the end of each line"
    )]
    LineBreak,
    /// The line may be a part of another variable's value.
    #[error(
        "may be a part of the quoted value that starts on line {opened}: close that quotation mark, or move \
         this line above it"
    )]
    InsideQuotes {
        /// The line where the quotation mark is opened, counted from 1.
        opened: usize,
    },
    /// A quotation mark is not closed on the line.
    #[error("opens a quotation mark and does not close it: close it, or write the key without quotes")]
    Unclosed,
    /// Something follows the closing quotation mark.
    #[error(
        "goes on after its closing quotation mark: remove that, or put a space and a `#` before a comment"
    )]
    AfterQuotes,
    /// The value has a quotation mark inside.
    #[error(
        "has a quotation mark inside its value: write the key alone, or between one pair of single quotes"
    )]
    QuoteInside,
    /// The value has a `$`.
    #[error(
        "has a `$` in its value, which no key has and which some programs replace even in quotes: write the \
         key itself, not the name of a variable"
    )]
    Dollar,
    /// The value has a `\`.
    #[error("has a `\\` in its value, which no key has and which some programs remove: write the key itself")]
    Backslash,
    /// A `#` starts a comment for some programs only.
    #[error(
        "has a `#` that starts a comment for some programs only: put a space before a comment; where it \
         belongs to the value, write the value in single quotes; leave an empty value with nothing after it"
    )]
    Hash,
    /// The name or the value is next to a blank other than a plain space.
    #[error(
        "has a tab, a no-break space (U+00A0), an ideographic space (U+3000) or another blank or invisible \
         character beside the name or the value: use plain spaces, or none"
    )]
    Blank,
    /// It is not UTF-8.
    #[error("has a value that is not UTF-8: save the file as UTF-8")]
    NotUtf8,
}

/// What the operating system has run out of, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Resource {
    /// Files, sockets and pipes that a process, or the whole machine, may have open.
    #[error(
        "file descriptors left: find what leaves files or connections open, or raise the limit (`ulimit -n`, \
         systemd's LimitNOFILE=)"
    )]
    Descriptors,
    /// Threads.
    #[error(
        "threads left: start fewer, or raise the limit (`ulimit -u`, systemd's TasksMax=, a container's pids \
         limit)"
    )]
    Threads,
    /// Processes.
    #[error(
        "processes left: start fewer, or raise the limit (`ulimit -u`, systemd's TasksMax=, a container's \
         pids limit)"
    )]
    Processes,
    /// Memory.
    #[error("memory left: give this process or machine more")]
    Memory,
}

impl Resource {
    /// What is exhausted, by an error of opening or connecting.
    #[cfg(unix)]
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        use rustix::io::Errno;

        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Self::Descriptors),
            Errno::NOMEM => Some(Self::Memory),
            _ => None,
        }
    }

    /// What is exhausted, by an error of opening or connecting.
    #[cfg(not(unix))]
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        (error.kind() == io::ErrorKind::OutOfMemory).then_some(Self::Memory)
    }
}
