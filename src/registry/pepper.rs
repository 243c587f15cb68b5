//! The secret under which keys are digested.

use std::collections::HashSet;
use std::fmt;

use zeroize::Zeroizing;

use super::RegistryError;
use super::generate;
use crate::key::{Fingerprint, KeyFormat, Origin, Profile, RawKey};
use crate::source::{self, Absence, KeyRef, KeyRefError, Loaded, Problem, SourceError};

/// What a pepper's text looks like: 32 to 512 `b64token` characters, such as `openssl rand -base64 32` prints. It is read
/// as a key is, and sent nowhere.
const PROFILE: &Profile = &Profile::new(
    "keysheath-pepper",
    "KEYSHEATH_PEPPER",
    Origin::https("pepper.invalid"),
    // What is plainly not random is refused by a rule of its own.
    KeyFormat::between(32, 512).allowing_placeholders(),
    128,
)
.with_title("pepper")
.with_key_page("a terminal, with `openssl rand -base64 32`");

/// The context of BLAKE3's key derivation. It never changes.
const CONTEXT: &str = "keysheath 2026-11-24 registry pepper v1";

/// The same, for the seals of rows: what one key digests is never taken for what the other does.
#[cfg(feature = "sqlite")]
const SEAL_CONTEXT: &str = "keysheath 2026-11-28 registry row seal v1";

/// How many peppers a registry takes.
///
/// ```
/// assert_eq!(keysheath::registry::MAX_PEPPERS, 16);
/// ```
pub const MAX_PEPPERS: usize = 16;

/// How many different characters a pepper has at least. Of 32 that are drawn at random, more than twice as many are.
const LEAST_VARIETY: usize = 8;

/// The length of a digest, in bytes.
pub(super) const DIGEST: usize = 16;

/// A secret that lives outside the records. Keys are digested under it, so that whoever has the records alone can
/// neither test guesses nor add a key of their own.
///
/// Make one with `openssl rand -base64 32`. The records hold its one-way name, by which one that a person thought up could
/// be guessed; what is plainly not random is refused. Keep it apart from the records: in a systemd credential or another file.
///
/// ```
/// use keysheath::registry::Pepper;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("pepper");
/// # std::fs::write(&path, "mY8Qz3vT1nW5xR7kJ2hG9fD4sA6pL0oIuYtReWqZxCv=\n").unwrap();
/// let reference = format!("file:{}", path.display()).parse()?;
/// let pepper = Pepper::from_reference(&reference)?;
/// println!("{pepper:?}"); // its one-way name
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pepper {
    key: Zeroizing<[u8; 32]>,
    #[cfg(feature = "sqlite")]
    seal_key: Zeroizing<[u8; 32]>,
    id: Fingerprint,
}

/// A pepper could not be loaded.
///
/// ```
/// use keysheath::registry::{Pepper, PepperError};
/// let reference = "file:/run/secrets/no-such-pepper".parse().unwrap();
/// assert!(matches!(Pepper::from_reference(&reference), Err(PepperError::Absent { .. })));
/// ```
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PepperError {
    /// The reference cannot be resolved here.
    #[error("{0}")]
    Reference(KeyRefError),
    /// Nothing stands there.
    #[error(
        "there is no pepper at {place}: {absence}; make one with `openssl rand -base64 32` and put it there"
    )]
    Absent {
        /// Where it was looked for.
        place: source::Provenance,
        /// Why there is none.
        absence: Absence,
    },
    /// What stands there has not the form of a pepper.
    #[error(
        "what stands at {place} is no pepper, which is 32 to 512 letters, digits and -._~+/ in one line (and = at its end): \
         make one with `openssl rand -base64 32` and put that alone there; where keys are under one already, put back that one"
    )]
    #[non_exhaustive]
    Malformed {
        /// Where.
        place: source::Provenance,
    },
    /// What stands there cannot be had.
    #[error("the pepper cannot be had from {0}")]
    Source(SourceError),
    /// It was not drawn at random.
    #[error(
        "the pepper at {place} could be guessed: make one with `openssl rand -base64 32` and put it there"
    )]
    Weak {
        /// Where it stands.
        place: source::Provenance,
    },
}

impl Pepper {
    /// Loads the pepper that a key reference names. Blocks; see [`source`].
    ///
    /// # Errors
    /// [`PepperError`] when it is not there, cannot be read, or has another form than 32 to 512 `b64token` characters.
    ///
    /// ```
    /// # use keysheath::registry::Pepper;
    /// assert!(Pepper::from_reference(&"env:NO_SUCH_VARIABLE".parse().unwrap()).is_err());
    /// ```
    pub fn from_reference(reference: &KeyRef) -> Result<Self, PepperError> {
        let place = reference.source().map_err(PepperError::Reference)?;
        let loaded = source::load(&*place, PROFILE).map_err(|error| match error.problem() {
            Problem::Missing { absence } => {
                PepperError::Absent { place: error.provenance().clone(), absence: *absence }
            }
            // Their advice is about keys, which a person copies from a page.
            Problem::Malformed(_) | Problem::Empty => {
                PepperError::Malformed { place: error.provenance().clone() }
            }
            _ => PepperError::Source(error),
        });
        match loaded? {
            Loaded::Found(found) if is_weak(found.key()) => {
                Err(PepperError::Weak { place: found.provenance().clone() })
            }
            Loaded::Found(found) => Ok(Self::of(found.key())),
            Loaded::Absent(absence) => Err(PepperError::Absent { place: place.provenance(), absence }),
        }
    }

    /// A pepper that nobody else has, for records that end with the process.
    ///
    /// # Errors
    /// [`RegistryError::NoRandomness`] when the operating system's generator fails.
    ///
    /// ```
    /// # use keysheath::registry::Pepper;
    /// let pepper = Pepper::random()?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn random() -> Result<Self, RegistryError> {
        Ok(Self::of(&generate::key(PROFILE, &mut generate::system)?))
    }

    fn of(text: &RawKey) -> Self {
        let text = text.expose_secret().as_bytes();
        Self {
            key: Zeroizing::new(blake3::derive_key(CONTEXT, text)),
            #[cfg(feature = "sqlite")]
            seal_key: Zeroizing::new(blake3::derive_key(SEAL_CONTEXT, text)),
            id: Fingerprint::of(PROFILE.name(), text),
        }
    }

    /// The one-way name that records are marked with.
    ///
    /// ```
    /// # use keysheath::registry::Pepper;
    /// assert_ne!(Pepper::random()?.id(), Pepper::random()?.id());
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn id(&self) -> Fingerprint {
        self.id
    }

    /// The digest of a key: the first 128 bits of BLAKE3 in its keyed mode.
    #[inline]
    pub(super) fn digest(&self, key: &[u8]) -> [u8; DIGEST] {
        first_half(&blake3::keyed_hash(&self.key, key))
    }

    /// The seal of a row.
    #[cfg(feature = "sqlite")]
    pub(super) fn seal(&self, row: &[u8]) -> [u8; DIGEST] {
        first_half(&blake3::keyed_hash(&self.seal_key, row))
    }
}

fn first_half(hash: &blake3::Hash) -> [u8; DIGEST] {
    let mut half = [0; DIGEST];
    half.copy_from_slice(&hash.as_bytes()[..DIGEST]);
    half
}

/// Whether a text has so few different characters that nobody drew it at random.
fn is_weak(text: &RawKey) -> bool {
    let different: HashSet<u8> = text.expose_secret().bytes().collect();
    different.len() < LEAST_VARIETY
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper({})", self.id)
    }
}

/// The pepper that new keys are digested under, and older ones that keys may still be under.
///
/// A key that is found under an older pepper is moved to the current one when it is used, so a pepper can be rotated
/// without a person's doing: add a new one, keep the old one among the older, and drop it once
/// [`keys_under`](super::KeyRegistry::keys_under) says 0. Each older pepper costs one more hash for a key that is not
/// known.
///
/// ```
/// use keysheath::registry::{Pepper, Peppers};
/// let peppers = Peppers::new(Pepper::random()?).with_older(Pepper::random()?);
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
#[derive(Debug)]
pub struct Peppers {
    /// The current one first.
    all: Vec<Pepper>,
}

impl Peppers {
    /// A current pepper alone.
    ///
    /// ```
    /// # use keysheath::registry::{Pepper, Peppers};
    /// let peppers = Peppers::new(Pepper::random()?);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn new(current: Pepper) -> Self {
        Self { all: vec![current] }
    }

    /// With a pepper that keys may still be under. One that is there already changes nothing. A registry takes at most
    /// [`MAX_PEPPERS`].
    ///
    /// ```
    /// # use keysheath::registry::{Pepper, Peppers};
    /// let peppers = Peppers::new(Pepper::random()?).with_older(Pepper::random()?);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn with_older(mut self, pepper: Pepper) -> Self {
        if self.place_of(pepper.id).is_none() {
            self.all.push(pepper);
        }
        self
    }

    pub(super) fn all(&self) -> &[Pepper] {
        &self.all
    }

    pub(super) fn current(&self) -> &Pepper {
        &self.all[0]
    }

    /// The pepper of this one-way name.
    #[cfg(feature = "sqlite")]
    pub(super) fn named(&self, id: Fingerprint) -> Option<&Pepper> {
        self.all.iter().find(|pepper| pepper.id == id)
    }

    /// The place of a pepper in [`Peppers::all`].
    pub(super) fn place_of(&self, id: Fingerprint) -> Option<u8> {
        self.all.iter().position(|pepper| pepper.id == id).and_then(|place| u8::try_from(place).ok())
    }
}
