//! What follows the `?` of a reference.

use std::fmt;

use super::KeyRefError;
use super::text::{Part, decode, encode, has_key};
use crate::source::Source;

/// How the text stands in the place, and whom its file may belong to.
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

    /// The source whose text is what these options say.
    pub(super) fn shape(&self, source: Box<dyn Source>) -> Box<dyn Source> {
        let source: Box<dyn Source> = match &self.pick {
            None => source,
            Some(Pick::Field(name)) => Box::new(source.field(name.as_str())),
            Some(Pick::Line(line)) => Box::new(source.line(*line)),
        };
        if self.is_base64 { Box::new(source.base64()) } else { source }
    }
}

/// In its one form: without a sign or leading zeros.
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
