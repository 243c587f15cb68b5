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

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::internal::printing::Printable;
use crate::source::{Command, Provenance, SecretFile, Source, Variable};

pub use parse::KeyRefError;
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

/// The source, if this build has the feature that is named as the scheme is. Otherwise returns the error.
macro_rules! if_built {
    ($feature:literal, $source:expr) => {{
        #[cfg(feature = $feature)]
        {
            Box::new($source)
        }
        #[cfg(not(feature = $feature))]
        {
            return Err(KeyRefError::Unsupported { scheme: $feature });
        }
    }};
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

    #[allow(unused_variables, reason = "used with some features only")]
    fn plain_source(&self) -> Result<Box<dyn Source>, KeyRefError> {
        let Options { owner, group, .. } = self.options;
        Ok(match &self.place {
            Place::Env { name } => Box::new(Variable::new(name.as_str())),
            Place::File { path } => {
                let file = SecretFile::new(&path.resolved);
                let file = owner.into_iter().fold(file, SecretFile::with_trusted_owner);
                Box::new(group.into_iter().fold(file, SecretFile::with_trusted_group))
            }
            Place::Dotenv { path, name } => if_built!("dotenv", {
                let file = super::DotenvFile::new(&path.resolved, name);
                let file = owner.into_iter().fold(file, super::DotenvFile::with_trusted_owner);
                group.into_iter().fold(file, super::DotenvFile::with_trusted_group)
            }),
            Place::Systemd { name } => Box::new(SecretFile::systemd_credential(name.as_str())),
            Place::Keychain { service, name } => if_built!("keychain", {
                let service = service.as_deref().unwrap_or(super::Keychain::SERVICE);
                super::KeychainItem::new(super::Keychain::for_service(service), name)
            }),
            Place::Command { .. } if !self.commands_allowed => {
                return Err(KeyRefError::CommandsNotAllowed);
            }
            Place::Command { words } => match words.split_first() {
                Some((program, words)) => Box::new(Command::new(program.as_str()).args(words)),
                None => return Err(parse::COMMAND_MISSING),
            },
            Place::OpenBao { mount, path, field } => {
                if_built!("openbao", super::OpenBaoField::from_env(format!("{mount}/{path}"), field))
            }
            Place::Invalid(problem) => return Err(*problem),
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

#[cfg(feature = "serde")]
mod serde_impls {
    use std::fmt;

    use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
    use serde::ser::{Error as _, Serialize, Serializer};

    use super::{KeyRef, KeyRefError};

    impl Serialize for KeyRef {
        /// Fails for a value that is not a reference: nothing of its text was kept.
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.problem() {
                None => serializer.collect_str(self),
                Some(problem) => Err(S::Error::custom(problem)),
            }
        }
    }

    impl<'de> Deserialize<'de> for KeyRef {
        /// Never fails because of a value, which may be a key: a parser prints the line that an error is
        /// about. A value that is not a reference is reported when it is used.
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            // If a string is requested and the value is a number, `serde_json` returns an error that prints
            // it, without calling the visitor. Formats that do not describe themselves need the request for
            // a string, and hold no other type.
            if deserializer.is_human_readable() {
                deserializer.deserialize_any(ReferenceVisitor)
            } else {
                deserializer.deserialize_str(ReferenceVisitor)
            }
        }
    }

    struct ReferenceVisitor;

    /// Each kind of value except a string.
    macro_rules! is_no_text {
        ($($method:ident: $value:ty),* $(,)?) => {
            $(fn $method<E>(self, _: $value) -> Result<KeyRef, E> {
                Ok(KeyRef::invalid(KeyRefError::NotText))
            })*
        };
    }

    impl<'de> Visitor<'de> for ReferenceVisitor {
        type Value = KeyRef;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a key reference, such as \"env:NAME\"")
        }

        fn visit_str<E>(self, text: &str) -> Result<KeyRef, E> {
            Ok(KeyRef::from_text(text))
        }

        is_no_text! {
            visit_bool: bool,
            visit_i64: i64,
            visit_i128: i128,
            visit_u64: u64,
            visit_u128: u128,
            visit_f64: f64,
            visit_bytes: &[u8],
        }

        fn visit_unit<E>(self) -> Result<KeyRef, E> {
            Ok(KeyRef::invalid(KeyRefError::NotText))
        }

        fn visit_none<E>(self) -> Result<KeyRef, E> {
            Ok(KeyRef::invalid(KeyRefError::NotText))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<KeyRef, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(KeyRef::invalid(KeyRefError::NotText))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeyRef, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(KeyRef::invalid(KeyRefError::NotText))
        }
    }
}
