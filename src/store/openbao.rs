//! A document in OpenBao.

use std::fmt;

use super::document::Seen;
use super::{Document, DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version};
use crate::internal::bytes::{WipedBytes, append_base64, decode_base64};
use crate::internal::calls::Seal;
use crate::openbao::entry::{Entry, SecretVersion, Stamp, Written};
use crate::openbao::{OpenBao, OpenBaoError};
use crate::source::openbao::{EXTRA, worker};
use crate::source::{Problem, Provenance};

/// Says what the secret is, in a field of its own.
const KIND: &str = "keysheath";
const FORMAT: &[u8] = b"document 1";

/// The field that has the content, in base64.
const CONTENT: &str = "content";

/// A document in a secret of its own in OpenBao, for all processes of a fleet: in a key-value secrets engine
/// of version 2, written only if the current version is the one that was read (`options.cas`).
///
/// - **Whole or not at all**, and it lasts as long as OpenBao's own storage does.
/// - **Its version is cheap to ask**: [`version`](DocumentStore::version) reads the secret's metadata and no
///   secret, so a refresher reads the document only when it has changed.
/// - **Standbys may be behind**, and one that has lost the others is for as long as that lasts. So before a
///   rotation has a key deleted, it writes the document once more, unchanged:
///   [`is_current`](DocumentStore::is_current).
/// - **Older versions** stay in OpenBao, ten of them unless its mount is set otherwise, and hold the keys of
///   that time.
///
/// What a token has to be allowed is in the docs of [`openbao`](crate::openbao). The secret has the fields
/// `keysheath` and `content`, and is not a key: an `OpenBaoField` of it would be refused.
///
/// ```no_run
/// use keysheath::openbao::OpenBao;
/// use keysheath::store::{DocumentContent, DocumentStore, OpenBaoStore};
///
/// let store = OpenBaoStore::new(OpenBao::from_env()?, "secret/shop/kanal-keys");
/// let version = store.write(&DocumentContent::from(b"text".to_vec()), None)?;
/// assert_eq!(store.version()?, Some(version));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct OpenBaoStore {
    entry: Entry,
    seen: Seen,
}

impl OpenBaoStore {
    /// The secret at `place`: the mount, a slash and the path. Nothing is sent yet. A call takes as long as
    /// the client's deadline says.
    #[must_use]
    pub fn new(client: OpenBao, place: impl AsRef<str>) -> Self {
        Self { entry: Entry::new(client, place.as_ref()), seen: Seen::default() }
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Entry, &Seen) -> Result<T, DocumentError> + Send + 'static,
    ) -> Result<T, DocumentError> {
        let (entry, seen) = (self.entry.clone(), self.seen.clone());
        let (worker, place) = worker(Some(self.entry.client()), self.entry.place());
        worker.run_with(place, EXTRA, move |turn| work(&entry.within(turn.rest()), &seen))?
    }
}

impl DocumentStore for OpenBaoStore {
    fn provenance(&self) -> Provenance {
        Provenance::OpenBao { place: self.entry.place().to_owned(), field: None, version: None }
    }

    fn is_own(&self, _: Seal) -> bool {
        true
    }

    fn limit(&self) -> usize {
        MAX_DOCUMENT
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.run(|entry, seen| {
            seen.look(|| entry.read().map_err(of_openbao)?.map(|secret| open(&secret)).transpose())
        })
    }

    fn version(&self) -> Result<Option<Version>, DocumentError> {
        self.run(|entry, seen| seen.look_at_version(|| Ok(entry.current().map_err(of_openbao)?.map(version))))
    }

    /// By writing the same once more: a standby that has lost the others answers reads, however old, and
    /// takes no write.
    fn is_current(&self, document: &Document) -> Result<bool, DocumentError> {
        match self.write(document.content(), Some(document.version())) {
            Ok(_) => Ok(true),
            Err(DocumentError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        content.must_fit(self.limit())?;
        let (content, unchanged) = (content.clone(), unchanged.map(stamp));
        self.run(move |entry, seen| match entry.write(&data(&content), unchanged).map_err(of_openbao)? {
            Written::Conflict => Err(DocumentError::Conflict),
            Written::Now(stamp) => {
                let version = version(stamp);
                seen.note(Some(&version));
                Ok(version)
            }
        })
    }
}

fn version(stamp: Stamp) -> Version {
    Version::new(stamp.number, stamp.time)
}

fn stamp(version: &Version) -> Stamp {
    let (number, time) = version.parts();
    Stamp { number, time }
}

/// The secret's fields, in a block that does not grow.
fn data(content: &DocumentContent) -> WipedBytes {
    let content = content.expose_secret();
    let length = content.len().div_ceil(3) * 4;
    let mut data = WipedBytes::with_capacity(length + 64);
    for part in [&b"{\""[..], KIND.as_bytes(), b"\":\"", FORMAT, b"\",\"", CONTENT.as_bytes(), b"\":\""] {
        data.append(part);
    }
    append_base64(&mut data, content);
    data.append(b"\"}");
    data
}

fn open(secret: &SecretVersion) -> Result<Document, DocumentError> {
    let field = |name| match secret.field(name) {
        Ok(Some(text)) => Ok(text),
        Ok(None) | Err(OpenBaoError::NotText) => Err(DocumentError::Corrupt),
        Err(error) => Err(of_openbao(error)),
    };
    let format = field(KIND)?;
    if *format != *FORMAT {
        let is_newer = format.starts_with(b"document ");
        return Err(if is_newer { DocumentError::Newer } else { DocumentError::Corrupt });
    }
    let text = field(CONTENT)?;
    let content = decode_base64(&text).ok_or(DocumentError::Corrupt)?;
    if content.len() > MAX_DOCUMENT || !(1..=Version::LAST).contains(&secret.stamp.number) {
        return Err(DocumentError::Corrupt);
    }
    Ok(Document::new(DocumentContent::from(content), version(secret.stamp)))
}

fn of_openbao(error: OpenBaoError) -> DocumentError {
    if error.is_temporary() {
        DocumentError::Unavailable(Problem::OpenBao(error.into()))
    } else {
        DocumentError::OpenBao(error.into())
    }
}

impl fmt::Debug for OpenBaoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenBaoStore({})", self.provenance())
    }
}
