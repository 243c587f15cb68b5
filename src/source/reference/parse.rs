//! Parsing what follows a scheme: the place, the options after a `?`, and why a text is refused.

use std::fmt;

use super::text::{Expansion, Part, decode, encode, has_key};
use super::{FilePath, Place};
use crate::internal::files::absolute;
use crate::source::{Source, is_credential_name, is_item_name};

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
    #[error("a key reference has at most 4096 bytes")]
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

pub(super) const COMMAND_MISSING: KeyRefError = KeyRefError::Missing {
    scheme: "command",
    part: "the program",
    form: "command:op read op://shop/kanal/key",
};

pub(super) fn place(scheme: &str, rest: &str) -> Result<Place, KeyRefError> {
    match scheme {
        "env" => parse_env(rest),
        "file" => parse_file(rest),
        "dotenv" => parse_dotenv(rest),
        "systemd" => parse_systemd(rest),
        "keychain" => parse_keychain(rest),
        "command" => parse_command(rest),
        "openbao" => parse_openbao(rest),
        _ => Err(KeyRefError::UnknownScheme),
    }
}

/// Decodes a part that must not be empty and has no bare `#`.
fn part(
    text: &str,
    scheme: &'static str,
    part: &'static str,
    form: &'static str,
) -> Result<String, KeyRefError> {
    if text.is_empty() {
        return Err(KeyRefError::Missing { scheme, part, form });
    }
    if has_key(text) {
        return Err(KeyRefError::LooksLikeKey { part });
    }
    if text.contains('#') {
        let rule = "a # in a name is written %23";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    if text.trim() != text {
        let rule = "white space at an end is not accepted: remove it (%20 if the name really has it there)";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    let decoded = decode(text)?;
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

fn file_path(text: &str, scheme: &'static str, form: &'static str) -> Result<FilePath, KeyRefError> {
    if let Some(expansion) = Expansion::in_text(text, Part::Path) {
        return Err(KeyRefError::Refused { scheme, rule: expansion.rule() });
    }
    // A URI with an empty host, such as file:///run/secrets/kanal, means the path.
    let text = text.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(text);
    if text.starts_with("//") {
        let rule = "what follows // would be a host, and files are read on this machine: write one /";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    let path = part(text, scheme, "the path", form)?;
    if path.split(['/', '\\']).any(|component| component == "..") {
        let rule = "a path with .. is refused: write the real path of the file";
        return Err(KeyRefError::Refused { scheme, rule });
    }
    let resolved = absolute(path.as_str().into());
    Ok(FilePath { written: path, resolved })
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
    if !is_credential_name(&name) {
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
    if !service.into_iter().chain([name]).all(is_item_name) {
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
    if text.split(' ').next().is_some_and(has_key) {
        return Err(KeyRefError::LooksLikeKey { part: "the program" });
    }
    if text.contains(['"', '\'', '`']) {
        let rule =
            "quotation marks are refused, because there is no shell: write a space inside a word as %20";
        return Err(refused(rule));
    }
    if text.contains('#') {
        return Err(refused("a # in a word is written %23"));
    }
    if let Some(expansion) = text.split(' ').find_map(|word| Expansion::in_text(word, Part::Word)) {
        return Err(refused(expansion.rule()));
    }
    let words = text.split(' ').map(decode).collect::<Result<Vec<_>, _>>()?;
    if words.iter().any(|word| word.is_empty() || word.contains('\0')) {
        let rule = "words are split on single spaces, and none may be empty or have a NUL";
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
    if path.split_once('/').is_some_and(|(first, _)| matches!(first, "data" | "metadata")) {
        return Err(KeyRefError::Refused {
            scheme: "openbao",
            rule: "leave out the data/ or metadata/ of the HTTP interface: write \
                   openbao:secret/shop/kanal#key for what `bao kv get secret/shop/kanal` reads",
        });
    }
    let (mount, path) = (mount.to_owned(), path.to_owned());
    Ok(Place::OpenBao { mount, path, field })
}

/// The form of the text, and the owner and group that its file may have.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Options {
    pub(super) owner: Option<u32>,
    pub(super) group: Option<u32>,
    pick: Option<Pick>,
    is_base64: bool,
}

/// The part of the text that is the key.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Pick {
    Field(String),
    Line(usize),
}

impl Options {
    pub(super) fn parse(text: &str) -> Result<Self, KeyRefError> {
        let mut options = Self::default();
        for option in text.split('&') {
            let (name, value) = option.split_once('=').ok_or(KeyRefError::Query)?;
            let is_new = match name {
                "owner" => {
                    let rule = "a user's number, as `id -u NAME` prints it";
                    options.owner.replace(number(value, "owner", rule)?).is_none()
                }
                "group" => {
                    let rule = "a group's number, as `getent group NAME` prints it";
                    options.group.replace(number(value, "group", rule)?).is_none()
                }
                "field" => options.pick.replace(Pick::Field(field(value)?)).is_none(),
                "line" => options.pick.replace(Pick::Line(line(value)?)).is_none(),
                "encoding" if value == "base64" => !std::mem::replace(&mut options.is_base64, true),
                "encoding" => return Err(KeyRefError::Option { option: "encoding", rule: "base64" }),
                _ => false,
            };
            if !is_new {
                return Err(KeyRefError::Query);
            }
        }
        Ok(options)
    }

    pub(super) const fn is_of_files(&self) -> bool {
        self.owner.is_some() || self.group.is_some()
    }

    /// Applies the form of the text to a source.
    pub(super) fn shape(&self, source: Box<dyn Source>) -> Box<dyn Source> {
        let source: Box<dyn Source> = match &self.pick {
            None => source,
            Some(Pick::Field(name)) => Box::new(source.field(name.as_str())),
            Some(Pick::Line(line)) => Box::new(source.line(*line)),
        };
        if self.is_base64 { Box::new(source.base64()) } else { source }
    }
}

/// Parses a number without sign or leading zeros.
fn number(text: &str, option: &'static str, rule: &'static str) -> Result<u32, KeyRefError> {
    let number = text.parse().ok().filter(|number: &u32| number.to_string() == text);
    number.ok_or(KeyRefError::Option { option, rule })
}

fn line(text: &str) -> Result<usize, KeyRefError> {
    let rule = "the number of a line, counted from 1";
    let line = usize::try_from(number(text, "line", rule)?).ok().filter(|line| *line > 0);
    line.ok_or(KeyRefError::Option { option: "line", rule })
}

fn field(text: &str) -> Result<String, KeyRefError> {
    if has_key(text) {
        return Err(KeyRefError::LooksLikeKey { part: "the field" });
    }
    if text.is_empty() || text.contains(['#', '?']) || text.trim() != text {
        let rule = "a field's name, without white space at its ends (# and ? are written %23 and %3F)";
        return Err(KeyRefError::Option { option: "field", rule });
    }
    decode(text)
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sign = '?';
        let mut write = |name: &str, value: &str| {
            write!(f, "{sign}{name}={value}")?;
            sign = '&';
            Ok(())
        };
        for (name, number) in [("owner", self.owner), ("group", self.group)] {
            number.map_or(Ok(()), |number| write(name, &number.to_string()))?;
        }
        match &self.pick {
            None => {}
            Some(Pick::Field(name)) => write("field", &encode(name, Part::Option))?,
            Some(Pick::Line(line)) => write("line", &line.to_string())?,
        }
        if self.is_base64 { write("encoding", "base64") } else { Ok(()) }
    }
}
