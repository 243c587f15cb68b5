//! What a source read: a text or nothing, from which place, and what to know about it.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;

use super::Problem;
use crate::internal::bytes::WipedBytes;
use crate::internal::files::private::{ReadState, Stamp};
use crate::internal::printing::{Printable, PrintablePath};
use crate::key::format::REFERENCE_SCHEMES;
use crate::key::{Issuer as _, Katana, Profile, RawKey};

/// What a source read: a text or nothing.
#[derive(Debug)]
pub struct Reading(pub(super) Content);

#[derive(Debug)]
pub(super) enum Content {
    Present {
        text: WipedBytes,
        provenance: Option<Provenance>,
        remarks: Vec<Remark>,
        /// Of the file that the text is from.
        state: Option<ReadState>,
    },
    Absent(Absence),
}

impl Reading {
    /// Creates the reading of a text, not yet checked. Its block is taken over and wiped in place when it is
    /// dropped. Removes one leading byte order mark and one final newline (LF or CRLF).
    ///
    /// A borrowed text is not accepted, because it would stay in memory:
    ///
    /// ```compile_fail,E0308
    /// keysheath::source::Reading::present("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z");
    /// ```
    #[must_use]
    pub fn present(text: String) -> Self {
        Self::present_bytes(text.into_bytes())
    }

    /// As [`Reading::present`], for bytes that may be no text. A key of them is refused then.
    #[must_use]
    pub fn present_bytes(text: Vec<u8>) -> Self {
        Self::of_wiped(WipedBytes::from(text))
    }

    pub(super) fn of_wiped(text: WipedBytes) -> Self {
        let text = without_mark_and_newline(text);
        Self(Content::Present { text, provenance: None, remarks: Vec::new(), state: None })
    }

    /// Creates the reading of a place where nothing is.
    #[must_use]
    pub const fn absent(absence: Absence) -> Self {
        Self(Content::Absent(absence))
    }

    /// Sets the place of the text, if it is more precise than the source's own provenance.
    #[must_use]
    pub fn with_provenance(mut self, place: Provenance) -> Self {
        if let Content::Present { provenance, .. } = &mut self.0 {
            *provenance = Some(place);
        }
        self
    }

    /// Sets the state of the file that the text is from, where its stamp lasts.
    pub(super) fn with_state(mut self, path: &Path, stamp: Option<Stamp>) -> Self {
        if let Content::Present { state, .. } = &mut self.0 {
            *state = stamp.map(|stamp| ReadState::new(path, stamp));
        }
        self
    }

    /// Adds what a person should know about the place.
    #[must_use]
    pub fn with_remarks(mut self, more: Vec<Remark>) -> Self {
        if let Content::Present { remarks, .. } = &mut self.0 {
            remarks.extend(more);
        }
        self
    }
}

/// The place that a source reads, or where a key was found. Its `Display` is for messages and logs.
///
/// It shows names and paths, which a person chose and which are not secret. Of a command it shows the program
/// and the number of arguments, because an argument may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provenance {
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// The file that an environment variable names.
    FileVariable {
        /// The variable's name, ending in `_FILE`.
        name: String,
        /// The file, once the variable was read.
        path: Option<PathBuf>,
    },
    /// A variable of a `.env` file.
    Dotenv {
        /// The file.
        path: PathBuf,
        /// The variable's name.
        name: String,
        /// Its line, counted from 1, once the file was read.
        line: Option<usize>,
    },
    /// A file that holds the key and nothing else.
    File {
        /// The file.
        path: PathBuf,
    },
    /// A credential that systemd passed.
    Systemd {
        /// The credential's name.
        name: String,
    },
    /// The standard output of a command.
    Command {
        /// The program.
        program: PathBuf,
        /// The number of its arguments.
        arguments: usize,
    },
    /// An item of the OS keychain.
    Keychain {
        /// The service that the item belongs to.
        service: String,
        /// The item's name.
        name: String,
    },
    /// A secret in OpenBao, or a field of it.
    OpenBao {
        /// The mount, a slash and the path.
        place: String,
        /// The field.
        field: Option<String>,
        /// Its version, counted from 1, once it was read.
        version: Option<NonZeroU64>,
    },
    /// A source from outside this crate.
    Other {
        /// What kind of place it is.
        kind: &'static str,
        /// Which one.
        name: String,
    },
}

impl Provenance {
    /// Creates the place of a source of your own. Neither part may be secret.
    #[must_use]
    pub fn other(kind: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        Self::Other { kind, name }
    }

    /// Whether the content cannot change while the process runs.
    pub(crate) const fn is_fixed(&self) -> bool {
        matches!(self, Self::Variable { .. })
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { name } => write!(f, "variable {}", Printable(name)),
            Self::FileVariable { name, path: None } => write!(f, "the file that {} names", Printable(name)),
            Self::FileVariable { name, path: Some(path) } => {
                write!(f, "file {} (named by {})", PrintablePath(path), Printable(name))
            }
            Self::Dotenv { path, name, line: None } => {
                write!(f, "{} in {}", Printable(name), PrintablePath(path))
            }
            Self::Dotenv { path, name, line: Some(line) } => {
                write!(f, "{} in {}, line {line}", Printable(name), PrintablePath(path))
            }
            Self::File { path } => write!(f, "file {}", PrintablePath(path)),
            Self::Systemd { name } => write!(f, "systemd credential {}", Printable(name)),
            Self::Command { program, arguments } => {
                let plural = if *arguments == 1 { "" } else { "s" };
                write!(f, "command {} with {arguments} argument{plural}", PrintablePath(program))
            }
            Self::Keychain { service, name } => {
                write!(f, "keychain item {}/{}", Printable(service), Printable(name))
            }
            Self::OpenBao { place, field, version } => {
                write!(f, "openbao {}", Printable(place))?;
                if let Some(field) = field {
                    write!(f, ", field {}", Printable(field))?;
                }
                version.map_or(Ok(()), |version| write!(f, ", version {version}"))
            }
            Self::Other { kind, name } => write!(f, "{kind} {}", Printable(name)),
        }
    }
}

/// Why nothing is there. None of these stops a chain, unless the source is
/// [required](super::Source::required).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Absence {
    /// The variable is not set.
    #[error("not set")]
    NotSet,
    /// The variable is set to nothing.
    #[error("set and empty, which counts as not set")]
    EmptyVariable,
    /// There is no such file.
    #[error("no such file")]
    NoFile,
    /// The file exists and does not set the variable.
    #[error("the file does not set it")]
    NotInFile,
    /// The file exists and does not set the variable, but sets one of a similar name.
    #[error("the file does not set it; line {line} sets a variable of a similar name")]
    #[non_exhaustive]
    SimilarInFile {
        /// The line, counted from 1.
        line: usize,
    },
    /// `$CREDENTIALS_DIRECTORY` is not set: systemd passed no credentials.
    #[error("$CREDENTIALS_DIRECTORY is not set: systemd passed no credentials")]
    NoCredentials,
    /// The keychain has no such item, or no default collection.
    #[error("no such item in the keychain")]
    NoItem,
    /// No secret was ever written there.
    #[error("no such secret in OpenBao")]
    NoSecret,
}

/// Something that a person should know about a place that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Remark {
    /// Users other than the owner and the group may read the file.
    #[error("every user of this machine can read it (mode {mode:03o})")]
    ReadableByOthers {
        /// The permission bits.
        mode: u32,
    },
    /// The file no longer has a name: it was replaced or removed where it is mounted from. This happens to a
    /// file that is mounted alone (by `subPath` or a bind mount).
    #[error(
        "it was replaced or removed where it is mounted from, and a mount of one file never shows another: \
         mount its folder, and restart"
    )]
    Unlinked,
    /// The text came through a pipe.
    #[error("it is a pipe, which gives a text once")]
    Pipe,
    /// Programs disagree about lines of a `.env` that set other variables.
    #[error(
        "programs that read .env files disagree about line {first}{}: write NAME=value with the value in \
         quotes that the value does not contain, or make the line a comment (#) where it sets nothing",
        Others(*.count)
    )]
    #[non_exhaustive]
    UnclearLines {
        /// The first of them, counted from 1.
        first: usize,
        /// How many there are.
        count: usize,
    },
}

/// The text after the number of the first line about another variable.
struct Others(usize);

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => f.write_str(", which is about another variable"),
            count => write!(f, " and {} more, which are about other variables", count - 1),
        }
    }
}

/// Parses a text as a key.
pub(super) fn parse(text: &[u8], profile: &'static Profile) -> Result<RawKey, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    // Without line breaks it is a well-formed key of an issuer with long keys.
    if is_encrypted(text) {
        return Err(Problem::EncryptedCredential);
    }
    RawKey::load(profile, text).map_err(|error| {
        if let Some(scheme) = reference_scheme(text) {
            Problem::Reference { scheme }
        } else if !profile.is_same_issuer(Katana::PROFILE) && is_uuid(text) {
            Problem::OtherIssuer { other: Katana::PROFILE.title(), wanted: profile.title() }
        } else {
            Problem::Malformed(error)
        }
    })
}

/// The base64 of each encrypted credential from its 23rd character, after an id: the sizes of key, block,
/// initialization vector and tag of AES-256-GCM.
const SIZES: &[u8; 20] = b"AAAAABAAAADAAAABAAAA";

/// Whether a text is a credential as `systemd-creds encrypt` writes it. In constant time: the text may be a
/// key.
fn is_encrypted(text: &[u8]) -> bool {
    text.get(22..42).is_some_and(|sizes| bool::from(sizes.ct_eq(SIZES)))
}

/// Removes one leading byte order mark and one final newline (`\n` or `\r\n`), as from the text of every
/// source.
pub(crate) fn without_mark_and_newline(mut text: WipedBytes) -> WipedBytes {
    let start = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let end = without_newline(&text).len().max(start);
    text.keep(start..end);
    text
}

/// Whether a text is empty without its mark and its final newline.
pub(super) fn has_nothing(text: &[u8]) -> bool {
    without_newline(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)).is_empty()
}

/// One line of a text, counted from 1.
pub(super) fn line(mut text: WipedBytes, line: usize) -> Result<WipedBytes, Problem> {
    let mut start = 0;
    let mut lines = 0;
    for part in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        if lines == line {
            let end = start + without_newline(part).len();
            text.keep(start..end);
            return Ok(text);
        }
        start += part.len();
    }
    Err(Problem::NoLine { line, lines })
}

/// The scheme of the key reference that a text begins with.
pub(super) fn reference_scheme(text: &[u8]) -> Option<&'static str> {
    let is_of =
        |scheme: &str| text.strip_prefix(scheme.as_bytes()).is_some_and(|rest| rest.starts_with(b":"));
    REFERENCE_SCHEMES.into_iter().find(|scheme| is_of(scheme))
}

/// Whether a text has the form of Katana's keys that are seen in public.
pub(crate) fn is_uuid(text: &[u8]) -> bool {
    let fits = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.iter().enumerate().all(fits)
}

fn without_newline(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r\n").or_else(|| text.strip_suffix(b"\n")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(bytes: &[u8]) -> Vec<u8> {
        without_mark_and_newline(WipedBytes::copy_of(bytes)).to_vec()
    }

    #[test]
    fn one_mark_and_one_newline_are_removed_and_nothing_else() {
        assert_eq!(stripped(b"key"), b"key");
        assert_eq!(stripped(b"key\n"), b"key");
        assert_eq!(stripped(b"key\r\n"), b"key");
        assert_eq!(stripped(b"key\n\n"), b"key\n");
        assert_eq!(stripped(b"key\r"), b"key\r");
        assert_eq!(stripped(b" key \n"), b" key ");
        assert_eq!(stripped(b"\xef\xbb\xbfkey"), b"key");
        assert_eq!(stripped(b"\xef\xbb\xbf\xef\xbb\xbfkey"), b"\xef\xbb\xbfkey");
        assert_eq!(stripped(b"\xef\xbb\xbf\n"), b"");
        assert_eq!(stripped(b"\n"), b"");
        assert_eq!(stripped(b""), b"");
    }

    #[test]
    fn a_line_is_cut_out_of_several() {
        let line = |text: &str, at| line(WipedBytes::copy_of(text.as_bytes()), at).map(|text| text.to_vec());
        assert_eq!(line("key\nuser: shop\r\n", 1).as_deref(), Ok(&b"key"[..]));
        assert_eq!(line("user\r\nkey\r\n\r\nmore", 2).as_deref(), Ok(&b"key"[..]));
        assert_eq!(line("user\nkey", 2).as_deref(), Ok(&b"key"[..]));
        assert_eq!(line("a\n\nb", 2).as_deref(), Ok(&b""[..]));
        for (text, at, lines) in [("a\n", 2, 1), ("a\nb", 3, 2), ("a", 0, 1), ("", 1, 0)] {
            assert_eq!(line(text, at), Err(Problem::NoLine { line: at, lines }), "{text:?}");
        }
    }
}
