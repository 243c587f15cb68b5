//! What is nearly where the key was looked for.

use std::fmt;

use super::{AttemptOutcome, Step};
use crate::internal::printable::Printable;
use crate::key::{Issuer as _, Kanal, Katana, Profile, RawKey};
use crate::source::{Problem, Provenance, SecretText, is_uuid, similar_names, variable_text};

/// Something that is nearly where a key was looked for, and probably meant to be it. No part of any value is kept.
///
/// ```
/// use keysheath::chain::NearMiss;
/// let near = NearMiss::Name { set: "KANAL_KEY".to_owned(), read: "KANAL_API_KEY".to_owned() };
/// assert_eq!(near.to_string(), "KANAL_KEY is set, and the variable that is read is KANAL_API_KEY");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NearMiss {
    /// A variable of a similar name is set.
    Name {
        /// The variable that is set.
        set: String,
        /// The variable that is read.
        read: String,
    },
    /// The variable of another issuer holds a text in the form of the key.
    OtherIssuer {
        /// The variable that is set.
        set: &'static str,
        /// Whose key its text looks like.
        title: &'static str,
        /// The variable that is read.
        read: &'static str,
    },
}

impl NearMiss {
    /// Of the variables that a chain has read in vain.
    pub(super) fn of(steps: &[Step], profile: &'static Profile) -> Vec<Self> {
        let absent = steps.iter().filter(|step| step.has_nothing());
        let mut found = Vec::new();
        for step in absent {
            let Provenance::Variable { name: read } = step.provenance() else { continue };
            found.extend(
                similar_names(read)
                    .into_iter()
                    .filter(|name| is_set(name))
                    .map(|set| Self::Name { set, read: read.clone() }),
            );
            if read == profile.variable() {
                found.extend(Self::in_another_issuers_variable(profile));
            }
        }
        found
    }

    fn in_another_issuers_variable(profile: &'static Profile) -> Option<Self> {
        let (set, is_like): (_, fn(&[u8]) -> bool) = if profile.is_same_issuer(Kanal::PROFILE) {
            (Katana::PROFILE.variable(), |text| RawKey::parse(Kanal::PROFILE, text).is_ok())
        } else if profile.is_same_issuer(Katana::PROFILE) {
            (Kanal::PROFILE.variable(), is_uuid)
        } else {
            return None;
        };
        let text = variable_text(set).map(SecretText::without_mark_and_newline)?;
        let (title, read) = (profile.title(), profile.variable());
        is_like(text.bytes()).then_some(Self::OtherIssuer { set, title, read })
    }
}

fn is_set(name: &str) -> bool {
    variable_text(name).is_some_and(|text| !text.bytes().is_empty())
}

impl Step {
    /// Whether there is nothing in its place, be that an error or not.
    fn has_nothing(&self) -> bool {
        matches!(self.witness(), AttemptOutcome::Absent(_) | AttemptOutcome::Broken(Problem::Missing { .. }))
    }
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { set, read } => {
                write!(f, "{} is set, and the variable that is read is {}", Printable(set), Printable(read))
            }
            Self::OtherIssuer { set, title, read } => {
                write!(
                    f,
                    "{set} holds a text in the form of a {title} key: a {title} key belongs into {read}"
                )
            }
        }
    }
}
