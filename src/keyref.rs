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
//! | `openbao:mount/path#field` | a field in OpenBao; it is read and written as text, and not yet resolved |
//!
//! The scheme runs to the first colon. `%XX` stands for `%`, `?`, `#` and control characters;
//! `?encoding=base64` may end any reference. The words of a command are split on single spaces, a space inside
//! a word is `%20`, and quotation marks are refused: there is no shell. Printing and parsing are inverse.
//!
//! # Security
//! A reference is no secret, and not harmless either: `command:` runs a program. Resolving one needs
//! [`KeyRef::allow_commands`], which a tool should call only for references that its user wrote. Paths with
//! `..` are refused.
//!
//! ```
//! use keysheath::keyref::KeyRef;
//!
//! let reference: KeyRef = "file:/run/secrets/kanal?encoding=base64".parse()?;
//! assert_eq!(reference.to_string(), "file:/run/secrets/kanal?encoding=base64");
//! let source = reference.source()?;
//! # Ok::<(), keysheath::keyref::KeyRefError>(())
//! ```

mod text;

#[cfg(feature = "serde")]
mod serde;

use std::fmt;
use std::str::FromStr;

use crate::source::{Command, Encoding, Provenance, SecretFile, Source, SystemdCredential, Variable};

use text::{decode, encode};

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
        "a % must be followed by the two hexadecimal digits of %, ?, # or a control character \
         (and, in a command, of a space)"
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
                None => return Err(COMMAND_MISSING),
            },
            Place::OpenBao { .. } => {
                return Err(KeyRefError::Unsupported {
                    scheme: "openbao",
                    remedy: "this version has no OpenBao client; use another place",
                });
            }
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

    fn encoded(&self, source: impl Source + 'static) -> Box<dyn Source> {
        match self.encoding {
            Encoding::Base64 => Box::new(source.base64()),
            Encoding::Plain => Box::new(source),
        }
    }
}

const COMMAND_MISSING: KeyRefError = KeyRefError::Missing {
    scheme: "command",
    part: "the program",
    form: "command:op read op://shop/kanal/key",
};

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
        let place = match scheme {
            "env" => parse_env(rest)?,
            "file" => parse_file(rest)?,
            "dotenv" => parse_dotenv(rest)?,
            "systemd" => parse_systemd(rest)?,
            "keychain" => parse_keychain(rest)?,
            "command" => parse_command(rest)?,
            "openbao" => parse_openbao(rest)?,
            _ => return Err(KeyRefError::UnknownScheme),
        };
        Ok(Self { place, encoding, commands_allowed: false })
    }
}

/// A decoded part that is there, without a bare `#`.
fn part(
    text: &str,
    scheme: &'static str,
    part: &'static str,
    form: &'static str,
) -> Result<String, KeyRefError> {
    if text.is_empty() {
        return Err(KeyRefError::Missing { scheme, part, form });
    }
    if text.contains('#') {
        let rule = "a # of a name is written %23";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    let decoded = decode(text, false)?;
    if decoded.contains('\0') {
        let rule = "a name has no NUL";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    Ok(decoded)
}

fn split_field<'a>(
    text: &'a str,
    scheme: &'static str,
    part: &'static str,
    form: &'static str,
) -> Result<(&'a str, &'a str), KeyRefError> {
    text.split_once('#').ok_or(KeyRefError::Missing { scheme, part, form })
}

fn variable_name(text: &str, scheme: &'static str, form: &'static str) -> Result<String, KeyRefError> {
    let name = part(text, scheme, "the variable's name", form)?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
    if !plain || name.as_bytes()[0].is_ascii_digit() {
        let rule = "a variable's name has letters, digits and underscores, and starts with no digit";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    Ok(name)
}

fn file_path(text: &str, scheme: &'static str, form: &'static str) -> Result<String, KeyRefError> {
    let path = part(text, scheme, "the path", form)?;
    if path.split(['/', '\\']).any(|component| component == "..") {
        let rule = "a path with .. is refused: write where the file really is";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    Ok(path)
}

fn parse_env(text: &str) -> Result<Place, KeyRefError> {
    let name = variable_name(text, "env", "env:KANAL_API_KEY")?;
    Ok(Place::Env { name })
}

fn parse_file(text: &str) -> Result<Place, KeyRefError> {
    let path = file_path(text, "file", "file:/run/secrets/kanal")?;
    Ok(Place::File { path })
}

fn parse_dotenv(text: &str) -> Result<Place, KeyRefError> {
    const FORM: &str = "dotenv:.env#KANAL_API_KEY";
    let (path, name) = split_field(text, "dotenv", "the variable after a #", FORM)?;
    let path = file_path(path, "dotenv", FORM)?;
    let name = variable_name(name, "dotenv", FORM)?;
    Ok(Place::Dotenv { path, name })
}

fn parse_systemd(text: &str) -> Result<Place, KeyRefError> {
    let name = part(text, "systemd", "the credential's name", "systemd:kanal_api_key")?;
    if !crate::source::is_credential_name(&name) {
        return Err(KeyRefError::Refused {
            scheme: "systemd",
            rule: "a credential's name is one file name, without separators, and not . or ..",
        });
    }
    Ok(Place::Systemd { name })
}

fn parse_keychain(text: &str) -> Result<Place, KeyRefError> {
    const FORM: &str = "keychain:kanal or keychain:shop-sync/kanal";
    let decoded = part(text, "keychain", "the item's name", FORM)?;
    let (service, name) = match decoded.split_once('/') {
        None => (None, decoded.as_str()),
        Some((service, name)) => (Some(service), name),
    };
    if !service.into_iter().chain([name]).all(crate::source::is_item_name) {
        return Err(KeyRefError::Refused {
            scheme: "keychain",
            rule: "a service and a name have 1 to 255 bytes, no / and no control characters",
        });
    }
    let (service, name) = (service.map(str::to_owned), name.to_owned());
    Ok(Place::Keychain { service, name })
}

fn parse_command(text: &str) -> Result<Place, KeyRefError> {
    let refused = |rule| KeyRefError::Refused { scheme: "command", rule };
    if text.is_empty() {
        return Err(COMMAND_MISSING);
    }
    if text.contains(['"', '\'', '`']) {
        let rule =
            "quotation marks are refused, because there is no shell: write a space inside a word as %20";
        return Err(refused(rule));
    }
    if text.contains('#') {
        return Err(refused("a # of a word is written %23"));
    }
    let words = text.split(' ').map(|word| decode(word, true)).collect::<Result<Vec<_>, _>>()?;
    if words.iter().any(|word| word.is_empty() || word.contains('\0')) {
        let rule = "words are split on single spaces, and none is empty or has a NUL";
        return Err(refused(rule));
    }
    Ok(Place::Command { words })
}

fn parse_openbao(text: &str) -> Result<Place, KeyRefError> {
    const FORM: &str = "openbao:mount/path#field";
    let (place, field) = split_field(text, "openbao", "the field after a #", FORM)?;
    let decoded = part(place, "openbao", "the mount and the path", FORM)?;
    let field = part(field, "openbao", "the field", FORM)?;
    let (mount, path) = decoded.split_once('/').unwrap_or((&decoded, ""));
    let climbs = decoded.split('/').any(|component| matches!(component, "" | "." | ".."));
    if climbs || path.is_empty() {
        return Err(KeyRefError::Refused {
            scheme: "openbao",
            rule: "write a mount, a / and a path without empty, . or .. components",
        });
    }
    let (mount, path) = (mount.to_owned(), path.to_owned());
    Ok(Place::OpenBao { mount, path, field })
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Env { name } => write!(f, "env:{}", encode(name, false))?,
            Place::File { path } => write!(f, "file:{}", encode(path, false))?,
            Place::Dotenv { path, name } => {
                write!(f, "dotenv:{}#{}", encode(path, false), encode(name, false))?;
            }
            Place::Systemd { name } => write!(f, "systemd:{}", encode(name, false))?,
            Place::Keychain { service, name } => {
                f.write_str("keychain:")?;
                if let Some(service) = service {
                    write!(f, "{}/", encode(service, false))?;
                }
                write!(f, "{}", encode(name, false))?;
            }
            Place::Command { words } => {
                for (at, word) in words.iter().enumerate() {
                    f.write_str(if at == 0 { "command:" } else { " " })?;
                    write!(f, "{}", encode(word, true))?;
                }
            }
            Place::OpenBao { mount, path, field } => {
                let (path, field) = (encode(path, false), encode(field, false));
                write!(f, "openbao:{}/{path}#{field}", encode(mount, false))?;
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
        write!(f, "KeyRef({shown})")
    }
}
