//! A field of a secret in OpenBao.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Absence, Problem, Provenance, Reading, SecretText, Source, SourceError};
use crate::internal::calls::{CallError, Caller, Target, Turn};
use crate::key::Profile;
use crate::openbao::entry::Entry;
use crate::openbao::{MAX_CALLS_PER_SERVER, OpenBao, OpenBaoError};

/// A field of a secret in OpenBao, in a key-value secrets engine of version 2: the current version.
///
/// That there is no such secret is an [`Absence`]. That it was deleted, that the field is missing or is not a
/// text, that the token is refused or the server cannot be asked is an error, and ends a chain.
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
    /// `None` until the environment was read.
    entry: Arc<OnceLock<Entry>>,
    place: String,
    field: String,
    deadline: Option<Duration>,
}

impl OpenBaoField {
    /// The field of the secret at `place`: the mount, a slash and the path, as `bao kv get` takes it. Where
    /// the mount ends is asked of OpenBao, so its name may have slashes.
    #[must_use]
    pub fn new(client: OpenBao, place: impl Into<String>, field: impl Into<String>) -> Self {
        let place = place.into();
        let entry = OnceLock::from(Entry::new(client, &place));
        Self { entry: Arc::new(entry), place, field: field.into(), deadline: None }
    }

    /// As [`OpenBaoField::new`], with the client of [`OpenBao::from_env`]. The environment is read at the
    /// first reading, and what is wrong with it is an error of the source.
    #[must_use]
    pub fn from_env(place: impl Into<String>, field: impl Into<String>) -> Self {
        Self { entry: Arc::default(), place: place.into(), field: field.into(), deadline: None }
    }

    /// How long reading may take, signing in included; as long as the client's own deadline unless set.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// With version 0: before it was read.
    fn provenance_of(&self, version: u64) -> Provenance {
        Provenance::OpenBao {
            place: self.place.clone(),
            field: Some(self.field.clone()),
            version: NonZeroU64::new(version),
        }
    }

    fn text(&self, turn: &Turn) -> Result<Option<(SecretText, u64)>, OpenBaoError> {
        let entry = if let Some(entry) = self.entry.get() {
            entry
        } else {
            let entry = Entry::new(OpenBao::from_env()?, &self.place);
            self.entry.get_or_init(|| entry)
        };
        let Some(secret) = entry.within(turn.rest()).read()? else { return Ok(None) };
        let text = secret.field(&self.field)?.ok_or(OpenBaoError::NoField)?;
        Ok(Some((SecretText::from_wiped(text), secret.stamp.number)))
    }
}

/// How much longer than its own deadline a call is given: its end is reported as what it is.
pub(crate) const EXTRA: std::time::Duration = std::time::Duration::from_secs(1);

/// A worker for calls to a secret, and what they are counted by: the secret, and the server that others are
/// at as well.
pub(crate) fn worker(client: Option<&OpenBao>, secret: &str) -> (Caller, Target) {
    let (worker, server, limit) = match client {
        None => (Caller::new(), String::from("environment"), MAX_CALLS_PER_SERVER),
        Some(client) => {
            let worker = Caller::new().with_deadline(client.deadline());
            (worker, client.address().to_string(), client.max_calls())
        }
    };
    (worker, Target::of("openbao", &(&server, secret)).at_server(&server, limit))
}

/// What it means that OpenBao was not reached: where the turn came late, that is the reason.
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
            Some((text, version)) if text.bytes().is_empty() => {
                return Err(SourceError::new(self.provenance_of(version), Problem::Empty));
            }
            Some((text, version)) => Reading::present(text).with_provenance(self.provenance_of(version)),
        })
    }
}

impl fmt::Debug for OpenBaoField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenBaoField({})", self.provenance())
    }
}
