//! A field of a secret in OpenBao.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Absence, Problem, Provenance, Reading, Source, SourceError};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::{CallError, Caller, Seal, Target, Turn};
use crate::key::Profile;
use crate::openbao::entry::Entry;
use crate::openbao::{MAX_CALLS_PER_SERVER, OpenBao, OpenBaoError};

/// A field of a secret in OpenBao, in a key-value secrets engine of version 2: the current version. If there
/// is no such secret, that is an [`Absence`]. A deleted secret, a missing field or one that is not a string,
/// a refused token and an unreachable server are errors, and end a chain.
///
/// ```
/// use keysheath::key::Origin;
/// use keysheath::openbao::{Login, OpenBao};
/// use keysheath::source::{OpenBaoField, Source};
///
/// let client = OpenBao::at(Origin::https("bao.example"), Login::kubernetes("shop-sync"))?;
/// let source = OpenBaoField::new(client, "secret/shop/kanal", "key");
/// assert_eq!(source.provenance().to_string(), "openbao secret/shop/kanal, field key");
/// # Ok::<(), keysheath::openbao::OpenBaoError>(())
/// ```
#[derive(Clone)]
pub struct OpenBaoField {
    /// Unset until the environment was read.
    entry: Arc<OnceLock<Entry>>,
    place: String,
    field: String,
    deadline: Option<Duration>,
}

impl OpenBaoField {
    /// The field of the secret at `place`: the mount, a slash and the path, as for `bao kv get`. OpenBao is
    /// asked where the mount ends, so its name may have slashes.
    #[must_use]
    pub fn new(client: OpenBao, place: impl Into<String>, field: impl Into<String>) -> Self {
        let place = place.into();
        let entry = OnceLock::from(Entry::new(client, &place));
        Self { entry: Arc::new(entry), place, field: field.into(), deadline: None }
    }

    /// As [`OpenBaoField::new`], with the client of [`OpenBao::from_env`]. The environment is read at the
    /// first reading, and an error in it is an error of the source.
    #[must_use]
    pub fn from_env(place: impl Into<String>, field: impl Into<String>) -> Self {
        Self { entry: Arc::default(), place: place.into(), field: field.into(), deadline: None }
    }

    /// Sets how long reading may take, with the login. The default is the client's own deadline.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The provenance; version 0 means that it was not read yet.
    fn provenance_of(&self, version: u64) -> Provenance {
        Provenance::OpenBao {
            place: self.place.clone(),
            field: Some(self.field.clone()),
            version: NonZeroU64::new(version),
        }
    }

    fn text(&self, turn: &Turn) -> Result<Option<(WipedBytes, u64)>, OpenBaoError> {
        let entry = if let Some(entry) = self.entry.get() {
            entry
        } else {
            let entry = Entry::new(OpenBao::from_env()?, &self.place);
            self.entry.get_or_init(|| entry)
        };
        let Some(secret) = entry.within(turn.rest()).read()? else { return Ok(None) };
        let text = secret.field(&self.field)?.ok_or(OpenBaoError::NoField)?;
        Ok(Some((text, secret.stamp.number)))
    }
}

/// The time beyond its own deadline that a call is given, so that it can report its own error.
pub(crate) const EXTRA: std::time::Duration = std::time::Duration::from_secs(1);

/// A caller for a secret, and the target by which its calls are counted: the secret and its server.
pub(crate) fn worker(client: Option<&OpenBao>, secret: &str) -> (Caller, Target) {
    let (worker, server, limit) = match client {
        None => (Caller::new().on_kept_threads(), String::from("environment"), MAX_CALLS_PER_SERVER),
        Some(client) => {
            let worker = Caller::new().on_kept_threads().with_deadline(client.deadline());
            (worker, client.address().to_string(), client.max_calls())
        }
    };
    (worker, Target::of("openbao", &(&server, secret)).at_server(&server, limit))
}

/// The problem when OpenBao was not reached: if the call started late, that is the reason.
fn problem(error: OpenBaoError, turn: &Turn) -> Problem {
    match turn.too_late() {
        late @ CallError::LateTurn { .. } if turn.rest().is_zero() => late.into(),
        _ => Problem::OpenBao(error.into()),
    }
}

impl Source for OpenBaoField {
    fn provenance(&self) -> Provenance {
        self.provenance_of(0)
    }

    fn is_own(&self, _: Seal) -> bool {
        true
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let own = self.clone();
        let (worker, place) = worker(self.entry.get().map(Entry::client), &self.place);
        let worker = self.deadline.into_iter().fold(worker, Caller::with_deadline);
        let outcome = worker
            .run_with(place, EXTRA, move |turn| own.text(turn).map_err(|error| problem(error, turn)))
            .map_err(Problem::from)
            .and_then(|text| text)
            .map_err(|problem| SourceError::new(self.provenance(), problem))?;
        Ok(match outcome {
            None => Reading::absent(Absence::NoSecret),
            Some((text, version)) if text.is_empty() => {
                return Err(SourceError::new(self.provenance_of(version), Problem::Empty));
            }
            Some((text, version)) => Reading::of_wiped(text).with_provenance(self.provenance_of(version)),
        })
    }
}

impl fmt::Debug for OpenBaoField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenBaoField({})", self.provenance())
    }
}
