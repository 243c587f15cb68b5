//! Texts in the shapes that people have: in base64, in a field of JSON, on one line of several. And sources that must have one.

use std::fmt;

use super::{Content, Problem, Provenance, Reading, SecretText, Source, SourceError};
use crate::internal::json_text::{self, NoText};
use crate::key::Profile;

/// A source whose text stands in a shape of its own; see [`Source::base64`], [`Source::field`] and [`Source::line`].
pub struct Shaped<S> {
    source: S,
    shape: Shape,
}

/// Where in a text the key stands.
#[derive(Clone)]
pub(super) enum Shape {
    Base64,
    Field(String),
    /// Counted from 1.
    Line(usize),
}

impl Shape {
    fn apply(&self, text: SecretText) -> Result<SecretText, Problem> {
        match self {
            Self::Base64 => text.decode_base64(),
            Self::Line(line) => text.line(*line),
            Self::Field(name) => {
                let field = json_text::field(text.bytes(), name).map_err(|why| match why {
                    NoText::NotAnObject => Problem::NotJson,
                    NoText::Missing => Problem::NoField { name: name.clone() },
                    NoText::Twice => Problem::FieldTwice { name: name.clone() },
                    NoText::NotAText => Problem::FieldNotText { name: name.clone() },
                })?;
                Ok(SecretText::from_wiped(field))
            }
        }
    }
}

impl<S> Shaped<S> {
    pub(super) const fn new(source: S, shape: Shape) -> Self {
        Self { source, shape }
    }
}

impl<S: Source> Source for Shaped<S> {
    fn provenance(&self) -> Provenance {
        self.source.provenance()
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        let (text, provenance, remarks) = match self.source.read(profile)?.0 {
            absent @ Content::Absent(_) => return Ok(Reading(absent)),
            Content::Present { text, provenance, remarks } => (text, provenance, remarks),
        };
        match self.shape.apply(text) {
            Ok(text) => {
                let reading = Reading::present(text).with_remarks(remarks);
                Ok(provenance.into_iter().fold(reading, Reading::with_provenance))
            }
            Err(problem) => Err(SourceError::new(provenance.unwrap_or_else(|| self.provenance()), problem)),
        }
    }
}

impl<S: Source> fmt::Debug for Shaped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shaped({})", self.provenance())
    }
}

/// A source that must have a key; see [`Source::required`].
pub struct Required<S> {
    source: S,
}

impl<S> Required<S> {
    pub(super) const fn new(source: S) -> Self {
        Self { source }
    }
}

impl<S: Source> Source for Required<S> {
    fn provenance(&self) -> Provenance {
        self.source.provenance()
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        match self.source.read(profile)? {
            Reading(Content::Absent(absence)) => {
                Err(SourceError::new(self.provenance(), Problem::Missing { absence }))
            }
            present => Ok(present),
        }
    }
}

impl<S: Source> fmt::Debug for Required<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Required({})", self.provenance())
    }
}
