//! Naming a source by a URI, so that a config file holds a reference and never a key.
//!
//! | reference | names |
//! |---|---|
//! | `env:KANAL_API_KEY` | an environment variable |
//! | `file:/run/secrets/kanal` | a secret file |
//! | `dotenv:.env#KANAL_API_KEY` | one variable of a `.env` |
//! | `systemd:kanal_api_key` | a credential that systemd passed |
//! | `keychain:kanal`, `keychain:shop-sync/kanal` | a keychain item, of the service `keysheath` unless named |
//! | `command:op read op://shop/kanal/key` | a program's output |
//! | `openbao:mount/path#field` | a field of a secret in OpenBao or Vault, whose address and token the environment has |
//!
//! The scheme runs to the first colon. `%XX` stands for `%`, `?`, `#`, for white space, for control characters and others
//! that are not shown as themselves (each byte of their UTF-8), and for `$`, `*` and `~`; `?encoding=base64` may end any
//! reference. There is no shell, so a path or a word that one would expand (`~/kanal`, `$HOME/kanal`) is refused. The words
//! of a command are split on single spaces, a space inside a word is `%20`, and quotation marks are refused. Printing and
//! parsing are inverse.
//!
//! # Security
//! A reference is no secret, and not harmless either: `command:` runs a program. Resolving one needs
//! [`KeyRef::allow_commands`], which a tool should call only for references that its user wrote. Paths with
//! `..` are refused.
//!
//! With the feature `serde`, a reference is a string in a config file. Where a person put the key itself there, the
//! error of this crate shows none of it; a parser may print the whole line beside that error, as `toml`'s `Display`
//! does, so show the parser's bare message and place instead.
//!
//! ```
//! use keysheath::keyref::KeyRef;
//!
//! let reference: KeyRef = "file:/run/secrets/kanal?encoding=base64".parse()?;
//! assert_eq!(reference.to_string(), "file:/run/secrets/kanal?encoding=base64");
//! let source = reference.source()?;
//! # Ok::<(), keysheath::keyref::KeyRefError>(())
//! ```

mod parse;
mod text;

#[cfg(feature = "serde")]
mod serde;

use std::fmt;
use std::str::FromStr;

use crate::internal::printable::Printable;
use crate::source::{Command, Provenance, SecretFile, Source, SystemdCredential, Variable};

use text::{Part, encode};

/// The longest reference, in bytes.
///
/// ```
/// assert_eq!(keysheath::keyref::MAX_REFERENCE, 4096);
/// ```
pub const MAX_REFERENCE: usize = 4096;

/// A URI that names a source.
///
/// Its `Debug` shows of a command the program and the number of its arguments only. Its `Display` is the
/// whole text, for writing it back into a config file.
///
/// ```
/// use keysheath::keyref::KeyRef;
///
/// let reference: KeyRef = "command:op read op://shop/kanal/key".parse()?;
/// assert_eq!(format!("{reference:?}"), "KeyRef(command op with 2 arguments)");
/// assert!(reference.source().is_err());
/// assert!(reference.allow_commands().source().is_ok());
/// # Ok::<(), keysheath::keyref::KeyRefError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyRef {
    place: Place,
    encoding: Encoding,
    commands_allowed: bool,
}

/// How the text stands in the place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Encoding {
    Plain,
    Base64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    Env { name: String },
    File { path: String },
    Dotenv { path: String, name: String },
    Systemd { name: String },
    Keychain { service: Option<String>, name: String },
    Command { words: Vec<String> },
    OpenBao { mount: String, path: String, field: String },
}

/// A text is not a key reference, or one that cannot be resolved here. It never holds the text, which may
/// be a key that was put in the wrong place.
///
/// ```
/// use keysheath::keyref::{KeyRef, KeyRefError};
/// assert_eq!("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z".parse::<KeyRef>(), Err(KeyRefError::NoScheme));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRefError {
    /// There is no colon.
    #[error(
        "a key reference starts with a scheme, such as env:NAME or file:/path; \
         if this is the key itself, put it into one of those places instead"
    )]
    NoScheme,
    /// The scheme is not one of those that exist.
    #[error("the scheme is none of env, file, dotenv, systemd, keychain, command and openbao")]
    UnknownScheme,
    /// It is longer than [`MAX_REFERENCE`].
    #[error("a key reference has at most {MAX_REFERENCE} bytes")]
    TooLong,
    /// A part that the scheme needs is missing or empty.
    #[error("{scheme}: {part} is missing: write it as {form}")]
    Missing {
        /// The scheme.
        scheme: &'static str,
        /// The part.
        part: &'static str,
        /// An example of the form.
        form: &'static str,
    },
    /// A part has something that it cannot have.
    #[error("{scheme}: {rule}")]
    Refused {
        /// The scheme.
        scheme: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// `%` is not followed by the two digits of a character that may be written so.
    #[error(
        "a % must be followed by the two hexadecimal digits of %, ?, #, $, *, ~, white space or a control character"
    )]
    Escape,
    /// What follows `?` is not `encoding=base64`.
    #[error("after a ? only encoding=base64 can stand; a ? of a name is written %3F")]
    Query,
    /// The reference runs a program, and that was not allowed.
    #[error(
        "the reference runs a program, which this tool allows only where its user wrote the reference: \
         name an env, file, systemd or keychain place, or call allow_commands"
    )]
    CommandsNotAllowed,
    /// The source that it names is not part of this build.
    #[error("{scheme}: references are not supported here: {remedy}")]
    Unsupported {
        /// The scheme.
        scheme: &'static str,
        /// What to do.
        remedy: &'static str,
    },
}

impl KeyRef {
    /// Lets a `command:` reference run its program. Call it only for references that the tool's own user
    /// wrote: whoever writes the reference chooses the program.
    ///
    /// ```
    /// # use keysheath::keyref::KeyRef;
    /// let reference = "command:pass show shop/kanal".parse::<KeyRef>()?.allow_commands();
    /// assert!(reference.source().is_ok());
    /// # Ok::<(), keysheath::keyref::KeyRefError>(())
    /// ```
    #[must_use]
    pub fn allow_commands(mut self) -> Self {
        self.commands_allowed = true;
        self
    }

    /// The source that the reference names. Nothing is read yet.
    ///
    /// # Errors
    /// [`KeyRefError::CommandsNotAllowed`] for a command that was not allowed, and
    /// [`KeyRefError::Unsupported`] where the source is not part of this build.
    ///
    /// ```
    /// # use keysheath::{keyref::KeyRef, source::Source};
    /// let source = "systemd:kanal_api_key".parse::<KeyRef>()?.source()?;
    /// assert_eq!(source.provenance().to_string(), "systemd credential kanal_api_key");
    /// # Ok::<(), keysheath::keyref::KeyRefError>(())
    /// ```
    pub fn source(&self) -> Result<Box<dyn Source>, KeyRefError> {
        Ok(match &self.place {
            Place::Env { name } => self.encoded(Variable::new(name.as_str())),
            Place::File { path } => self.encoded(SecretFile::new(path.as_str())),
            Place::Dotenv { path, name } => self.dotenv(path, name)?,
            Place::Systemd { name } => self.encoded(SystemdCredential::new(name.as_str())),
            Place::Keychain { service, name } => self.keychain(service.as_deref(), name)?,
            Place::Command { .. } if !self.commands_allowed => {
                return Err(KeyRefError::CommandsNotAllowed);
            }
            Place::Command { words } => match words.split_first() {
                Some((program, words)) => self.encoded(Command::new(program.as_str()).args(words)),
                None => return Err(parse::COMMAND_MISSING),
            },
            Place::OpenBao { mount, path, field } => self.openbao(mount, path, field)?,
        })
    }

    #[cfg(feature = "dotenv")]
    #[allow(clippy::unnecessary_wraps, reason = "the signature is shared with the build without the source")]
    fn dotenv(&self, path: &str, name: &str) -> Result<Box<dyn Source>, KeyRefError> {
        Ok(self.encoded(crate::source::DotenvFile::new(path, name)))
    }

    #[cfg(not(feature = "dotenv"))]
    #[allow(clippy::unused_self, reason = "the signature is shared with the build that has the source")]
    fn dotenv(&self, _: &str, _: &str) -> Result<Box<dyn Source>, KeyRefError> {
        Err(KeyRefError::Unsupported {
            scheme: "dotenv",
            remedy: "build keysheath with its feature `dotenv`",
        })
    }

    #[cfg(feature = "keychain")]
    #[allow(clippy::unnecessary_wraps, reason = "the signature is shared with the build without the source")]
    fn keychain(&self, service: Option<&str>, name: &str) -> Result<Box<dyn Source>, KeyRefError> {
        use crate::source::{Keychain, KeychainItem};

        let keychain = Keychain::of_service(service.unwrap_or(Keychain::SERVICE));
        Ok(self.encoded(KeychainItem::new(keychain, name)))
    }

    #[cfg(not(feature = "keychain"))]
    #[allow(clippy::unused_self, reason = "the signature is shared with the build that has the source")]
    fn keychain(&self, _: Option<&str>, _: &str) -> Result<Box<dyn Source>, KeyRefError> {
        Err(KeyRefError::Unsupported {
            scheme: "keychain",
            remedy: "build keysheath with its feature `keychain`",
        })
    }

    #[cfg(feature = "openbao")]
    #[allow(clippy::unnecessary_wraps, reason = "the signature is shared with the build without the source")]
    fn openbao(&self, mount: &str, path: &str, field: &str) -> Result<Box<dyn Source>, KeyRefError> {
        Ok(self.encoded(crate::source::OpenBaoField::from_env(format!("{mount}/{path}"), field)))
    }

    #[cfg(not(feature = "openbao"))]
    #[allow(clippy::unused_self, reason = "the signature is shared with the build that has the source")]
    fn openbao(&self, _: &str, _: &str, _: &str) -> Result<Box<dyn Source>, KeyRefError> {
        Err(KeyRefError::Unsupported {
            scheme: "openbao",
            remedy: "build keysheath with its feature `openbao`",
        })
    }

    fn encoded(&self, source: impl Source + 'static) -> Box<dyn Source> {
        match self.encoding {
            Encoding::Base64 => Box::new(source.base64()),
            Encoding::Plain => Box::new(source),
        }
    }
}

impl FromStr for KeyRef {
    type Err = KeyRefError;

    fn from_str(text: &str) -> Result<Self, KeyRefError> {
        if text.len() > MAX_REFERENCE {
            return Err(KeyRefError::TooLong);
        }
        let (scheme, rest) = text.split_once(':').ok_or(KeyRefError::NoScheme)?;
        let (rest, encoding) = match rest.split_once('?') {
            None => (rest, Encoding::Plain),
            Some((rest, "encoding=base64")) => (rest, Encoding::Base64),
            Some(_) => return Err(KeyRefError::Query),
        };
        let place = parse::place(scheme, rest)?;
        Ok(Self { place, encoding, commands_allowed: false })
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Env { name } => write!(f, "env:{}", encode(name, Part::Name))?,
            Place::File { path } => write!(f, "file:{}", encode(path, Part::Path))?,
            Place::Dotenv { path, name } => {
                write!(f, "dotenv:{}#{}", encode(path, Part::Path), encode(name, Part::Name))?;
            }
            Place::Systemd { name } => write!(f, "systemd:{}", encode(name, Part::Name))?,
            Place::Keychain { service, name } => {
                f.write_str("keychain:")?;
                if let Some(service) = service {
                    write!(f, "{}/", encode(service, Part::Name))?;
                }
                write!(f, "{}", encode(name, Part::Name))?;
            }
            Place::Command { words } => {
                for (at, word) in words.iter().enumerate() {
                    f.write_str(if at == 0 { "command:" } else { " " })?;
                    write!(f, "{}", encode(word, Part::Word))?;
                }
            }
            Place::OpenBao { mount, path, field } => {
                let (path, field) = (encode(path, Part::Name), encode(field, Part::Name));
                write!(f, "openbao:{}/{path}#{field}", encode(mount, Part::Name))?;
            }
        }
        match self.encoding {
            Encoding::Base64 => f.write_str("?encoding=base64"),
            Encoding::Plain => Ok(()),
        }
    }
}

impl fmt::Debug for KeyRef {
    /// As [`Provenance`] shows it, so of a command the program and the number of its arguments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match &self.place {
            Place::Command { words } => Provenance::Command {
                program: words.first().cloned().unwrap_or_default().into(),
                arguments: words.len().saturating_sub(1),
            }
            .to_string(),
            _ => self.to_string(),
        };
        write!(f, "KeyRef({})", Printable(&shown))
    }
}
