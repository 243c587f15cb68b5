//! The places of keys.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use crate::internal::printing::{Printable, PrintablePath};

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
    /// The place of a source of your own. Neither part may be secret.
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
