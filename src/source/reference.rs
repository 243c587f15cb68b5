//! URIs that name a source, so that a config file holds a reference and never a key.
//!
//! | reference | names |
//! |---|---|
//! | `env:KANAL_API_KEY` | an environment variable |
//! | `file:/run/secrets/kanal` | a secret file |
//! | `dotenv:.env#KANAL_API_KEY` | one variable of a `.env` |
//! | `systemd:kanal_api_key` | a credential that systemd passed |
//! | `keychain:kanal`, `keychain:shop-sync/kanal` | a keychain item; the default service is `keysheath` |
//! | `command:op read op://shop/kanal/key` | a program's output |
//! | `openbao:mount/path#field` | a field of a secret in OpenBao or Vault (by the environment) |
//! The scheme ends at the first colon. `%XX` encodes `%`, `?`, `#`, `$`, `*`, `~`, `&`, white space, and
//! control and other invisible characters (each byte of their UTF-8). It also encodes a letter or digit of a
//! name that has the form of a Kanal key, which is refused otherwise. There is no shell, so a path or a word
//! that one would expand (`~/kanal`, `$HOME/kanal`) is refused. The words of a command are split on single
//! spaces, a space inside a word is `%20`, and quotation marks are refused. Printing and parsing are inverse.
//! A relative path is resolved when the reference is parsed.
//!
//! A reference may end with options, after a `?` and joined by `&`:
//!
//! | option | meaning | as |
//! |---|---|---|
//! | `field=NAME` | the key is in this field of a JSON object | [`Source::field`] |
//! | `line=NUMBER` | the key is this line of the text, counted from 1 | [`Source::line`] |
//! | `encoding=base64` | the text, or the field or line of it, is in base64 | [`Source::base64`] |
//! | `owner=UID` | of a file: it may also belong to this user | [`SecretFile::with_trusted_owner`] |
//! | `group=GID` | of a file: this group may write it | [`SecretFile::with_trusted_group`] |
//!
//! A reference says where the key is expected, so a place without a key is an error
//! ([`Problem::Missing`](crate::source::Problem::Missing)) and never an absence.
//!
//! # Security
//! A reference is not secret, but it is not harmless: `command:` runs a program. Resolving one needs
//! [`KeyRef::allow_commands`], which a tool should call only for references that its user wrote. Paths with
//! `..` are refused. A user may write the key itself in place of a reference, or after a scheme. A name (of a
//! variable, file, directory, credential, item, field or program) in the form of a Kanal key, 24 letters and
//! digits with upper case, lower case and digits, is refused ([`KeyRefError::LooksLikeKey`]). A key of
//! another form after a scheme is taken for a name. The errors of this crate show none of it, but a parser
//! may print the text that an error is about: `toml` prints the whole line, and `clap` the argument.
//!
//! So with the feature `serde`, reading a config file never fails because of the value of a reference: the
//! [`KeyRef`] reports it when it is used, and [`KeyRef::problem`] reports it earlier. An error about
//! something else on that line, such as an unknown field, still prints the line: for an error of `toml`,
//! print `error.message()` and not the error itself. For an argument of a command line, use
//! [`KeyRef::from_text`] in the same way (and do not print `ArgMatches`, which keeps the argument):
//!
//! ```
//! use std::convert::Infallible;
//! use keysheath::source::KeyRef;
//!
//! let command = clap::Command::new("shop-sync").arg(
//!     clap::Arg::new("key").value_parser(|text: &str| Ok::<_, Infallible>(KeyRef::from_text(text))),
//! );
//! let matches = command.get_matches_from(["shop-sync", "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"]);
//! let reference: &KeyRef = matches.get_one("key").unwrap();
//! assert!(reference.problem().is_some());
//! ```
//!
//! ```
//! use keysheath::source::KeyRef;
//!
//! let reference: KeyRef = "file:/run/secrets/shop.json?field=KANAL_API_KEY&encoding=base64".parse()?;
//! assert_eq!(reference.to_string(), "file:/run/secrets/shop.json?field=KANAL_API_KEY&encoding=base64");
//! let source = reference.source()?;
//! # Ok::<(), keysheath::source::KeyRefError>(())
//! ```

mod parse;
mod text;

#[cfg(feature = "serde")]
mod serde;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::internal::printing::Printable;
#[cfg(feature = "dotenv")]
use crate::source::DotenvFile;
#[cfg(feature = "openbao")]
use crate::source::OpenBaoField;
use crate::source::{Command, Provenance, SecretFile, Source, SystemdCredential, Variable};
#[cfg(feature = "keychain")]
use crate::source::{Keychain, KeychainItem};

use parse::Options;
use text::{Part, encode};

/// The longest reference, in bytes.
const MAX_REFERENCE: usize = 4096;

/// A URI that names a source.
///
/// Its `Debug` shows only the program and the number of arguments of a command. Its `Display` is the whole
/// text, for writing it back into a config file.
///
/// ```
/// use keysheath::source::KeyRef;
///
/// let reference: KeyRef = "command:op read op://shop/kanal/key".parse()?;
/// assert_eq!(format!("{reference:?}"), "KeyRef(command op with 2 arguments)");
/// assert!(reference.source().is_err());
/// assert!(reference.allow_commands().source().is_ok());
/// # Ok::<(), keysheath::source::KeyRefError>(())
/// ```
#[doc(alias("uri", "config"))]
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyRef {
    place: Place,
    options: Options,
    commands_allowed: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    Env {
        name: String,
    },
    File {
        path: FilePath,
    },
    Dotenv {
        path: FilePath,
        name: String,
    },
    Systemd {
        name: String,
    },
    Keychain {
        service: Option<String>,
        name: String,
    },
    Command {
        words: Vec<String>,
    },
    OpenBao {
        mount: String,
        path: String,
        field: String,
    },
    /// A text that is not a reference. Nothing of it is kept.
    Invalid(KeyRefError),
}

/// A path as it was written, and as it was resolved when it was parsed.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FilePath {
    written: String,
    resolved: PathBuf,
}

/// A text is not a key reference, or one that cannot be resolved here. The error never holds the text, which
/// may be a key in the wrong place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRefError {
    /// There is no colon.
    #[error(
        "a key reference names a place, such as env:NAME or file:/path, and never holds a key; if this is \
         the key itself, save it in an environment variable or a file, and write the name of that after env: \
         or file:"
    )]
    NoScheme,
    /// The scheme does not exist.
    #[error(
        "the scheme is not one of env, file, dotenv, systemd, keychain, command and openbao, in lower case"
    )]
    UnknownScheme,
    /// It has more than 4096 bytes, as written or as printed.
    #[error("a key reference has at most {MAX_REFERENCE} bytes")]
    TooLong,
    /// A part that the scheme needs is missing or empty.
    #[error("{scheme}: {part} is missing: write it as {form}")]
    #[non_exhaustive]
    Missing {
        /// The scheme.
        scheme: &'static str,
        /// The part.
        part: &'static str,
        /// An example of the form.
        form: &'static str,
    },
    /// A part breaks a rule of its scheme.
    #[error("{scheme}: {rule}")]
    #[non_exhaustive]
    Refused {
        /// The scheme.
        scheme: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// A part has the form of a Kanal key. A name of that form is accepted if one of its characters is
    /// written as `%XX`.
    #[error(
        "{part} looks like a key, and a reference names only the place of one: put the key into that place, \
         and write the place's name here (a name of this form is accepted with one of its characters written \
         as %XX)"
    )]
    #[non_exhaustive]
    LooksLikeKey {
        /// The part.
        part: &'static str,
    },
    /// `%` is not followed by the two digits of a character that may be encoded.
    #[error(
        "a % must be followed by the two hexadecimal digits of %, ?, #, $, *, ~, &, white space or a control \
         character"
    )]
    Escape,
    /// An option has a value that it does not accept.
    #[error("the option {option} is {rule}")]
    #[non_exhaustive]
    Option {
        /// The option.
        option: &'static str,
        /// What it accepts.
        rule: &'static str,
    },
    /// What follows `?` is not an option, an option twice, or not an option of this scheme.
    #[error(
        "options follow a ?, each once and joined by &: field=NAME or line=NUMBER, encoding=base64, and for \
         files owner=UID and group=GID; a ? in a name is written %3F"
    )]
    Query,
    /// A value in a config file is not a string.
    #[error("a key reference is a string, such as \"env:NAME\", and this value is not")]
    NotText,
    /// The reference runs a program, which was not allowed.
    #[error(
        "the reference runs a program, which this tool allows only where its user wrote the reference: \
         name an env, file, systemd or keychain place, or call allow_commands"
    )]
    CommandsNotAllowed,
    /// This build does not have the source that it names.
    #[error("this build cannot read {scheme}: references: enable the feature `{scheme}` of keysheath")]
    #[non_exhaustive]
    Unsupported {
        /// The scheme, which is also the name of the feature.
        scheme: &'static str,
    },
}

impl fmt::Debug for KeyRefError {
    /// As [`Display`](fmt::Display): a `main` that ends with the error prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KeyRef {
    /// Allows a `command:` reference to run its program. Call it only for references that the tool's own user
    /// wrote: the author of the reference chooses the program.
    #[must_use]
    pub fn allow_commands(mut self) -> Self {
        self.commands_allowed = true;
        self
    }

    /// Parses a text that may be a key by mistake. Never fails: if the text is not a reference, the value
    /// reports that when it is used, and keeps nothing of the text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        text.parse().unwrap_or_else(Self::invalid)
    }

    fn invalid(problem: KeyRefError) -> Self {
        Self { place: Place::Invalid(problem), options: Options::default(), commands_allowed: false }
    }

    /// Returns why this is not a reference, if it is not. See [`KeyRef::from_text`].
    #[must_use]
    pub const fn problem(&self) -> Option<KeyRefError> {
        match self.place {
            Place::Invalid(problem) => Some(problem),
            _ => None,
        }
    }

    /// Returns the source that the reference names, without reading it. The source is
    /// [required](Source::required): nothing there is an error.
    ///
    /// # Errors
    /// [`KeyRefError::CommandsNotAllowed`] for a command that was not allowed, [`KeyRefError::Unsupported`]
    /// if this build does not have the source, and [`KeyRef::problem`] if there is one.
    pub fn source(&self) -> Result<Box<dyn Source>, KeyRefError> {
        Ok(Box::new(self.options.shape(self.plain_source()?).required()))
    }

    fn plain_source(&self) -> Result<Box<dyn Source>, KeyRefError> {
        Ok(match &self.place {
            Place::Env { name } => Box::new(Variable::new(name.as_str())),
            Place::File { path } => {
                let file = SecretFile::new(&path.resolved);
                let file = self.options.owner.into_iter().fold(file, SecretFile::with_trusted_owner);
                Box::new(self.options.group.into_iter().fold(file, SecretFile::with_trusted_group))
            }
            #[cfg(feature = "dotenv")]
            Place::Dotenv { path, name } => {
                let file = DotenvFile::new(&path.resolved, name);
                let file = self.options.owner.into_iter().fold(file, DotenvFile::with_trusted_owner);
                Box::new(self.options.group.into_iter().fold(file, DotenvFile::with_trusted_group))
            }
            Place::Systemd { name } => Box::new(SystemdCredential::new(name.as_str())),
            #[cfg(feature = "keychain")]
            Place::Keychain { service, name } => {
                let service = service.as_deref().unwrap_or(Keychain::SERVICE);
                Box::new(KeychainItem::new(Keychain::for_service(service), name))
            }
            Place::Command { .. } if !self.commands_allowed => {
                return Err(KeyRefError::CommandsNotAllowed);
            }
            Place::Command { words } => match words.split_first() {
                Some((program, words)) => Box::new(Command::new(program.as_str()).args(words)),
                None => return Err(parse::COMMAND_MISSING),
            },
            #[cfg(feature = "openbao")]
            Place::OpenBao { mount, path, field } => {
                Box::new(OpenBaoField::from_env(format!("{mount}/{path}"), field))
            }
            Place::Invalid(problem) => return Err(*problem),
            #[cfg(not(feature = "dotenv"))]
            Place::Dotenv { .. } => return Err(KeyRefError::Unsupported { scheme: "dotenv" }),
            #[cfg(not(feature = "keychain"))]
            Place::Keychain { .. } => return Err(KeyRefError::Unsupported { scheme: "keychain" }),
            #[cfg(not(feature = "openbao"))]
            Place::OpenBao { .. } => return Err(KeyRefError::Unsupported { scheme: "openbao" }),
        })
    }
}

impl FromStr for KeyRef {
    type Err = KeyRefError;

    fn from_str(text: &str) -> Result<Self, KeyRefError> {
        if text.len() > MAX_REFERENCE {
            return Err(KeyRefError::TooLong);
        }
        let (scheme, rest) = text.split_once(':').ok_or(KeyRefError::NoScheme)?;
        let (rest, options) = match rest.split_once('?') {
            None => (rest, None),
            Some((rest, options)) => (rest, Some(options)),
        };
        let place = parse::place(scheme, rest)?;
        let options = options.map_or(Ok(Options::default()), Options::parse)?;
        if options.is_of_files() && !matches!(place, Place::File { .. } | Place::Dotenv { .. }) {
            return Err(KeyRefError::Query);
        }
        let reference = Self { place, options, commands_allowed: false };
        // Printing may lengthen it, and the printed text must parse again.
        if reference.to_string().len() > MAX_REFERENCE {
            return Err(KeyRefError::TooLong);
        }
        Ok(reference)
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Env { name } => write!(f, "env:{}", encode(name, Part::Name))?,
            Place::File { path } => write!(f, "file:{}", encode(&path.written, Part::Path))?,
            Place::Dotenv { path, name } => {
                let path = encode(&path.written, Part::Path);
                write!(f, "dotenv:{path}#{}", encode(name, Part::Name))?;
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
            Place::Invalid(_) => f.write_str("(no key reference)")?,
        }
        self.options.fmt(f)
    }
}

impl fmt::Debug for KeyRef {
    /// As [`Provenance`]: for a command, only the program and the number of arguments.
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
