//! One secret of a key-value secrets engine of version 2.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac_sha256::Hash;

use super::json::not_there;
use super::servers::{Answered, Call, check_name, encoded};
use super::session::read;
use super::{OpenBao, OpenBaoError, json};
use crate::internal::bytes::WipedBytes;
use crate::internal::threads::Lock;

const READ: &str = "read MOUNT/data/PATH";
const READ_METADATA: &str = "read MOUNT/metadata/PATH";
const WRITE: &str = "create and update MOUNT/data/PATH";

/// A secret at `mount/path`; clones share what is known of the mount.
#[derive(Clone)]
pub(crate) struct Entry {
    client: OpenBao,
    place: Arc<str>,
    /// Where the mount ends in the place, once OpenBao has said so.
    mount: Arc<Lock<Option<usize>>>,
}

/// Which version of a secret it is: its number, and a number made of the time at which it was written, which
/// differs where the secret was deleted and made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) number: u64,
    pub(crate) time: u64,
}

/// A version of a secret.
pub(crate) struct SecretVersion {
    pub(crate) stamp: Stamp,
    /// The whole answer.
    answer: Answered,
}

/// How a write ended that OpenBao has answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Now(Stamp),
    /// Another version is there than the one that was named. Nothing was written.
    Conflict,
}

impl SecretVersion {
    /// The text of a field, or `None` where there is no such field.
    pub(crate) fn field(&self, name: &str) -> Result<Option<WipedBytes>, OpenBaoError> {
        let answer: json::Answer<json::Data<'_>> = read(&self.answer)?;
        match json::field(answer.data.data, name) {
            Err(json::NotAnObject) => Err(OpenBaoError::NotOpenBao { status: self.answer.status }),
            Ok(None) => Ok(None),
            Ok(Some(value)) => json::text(value).map(Some).ok_or(OpenBaoError::NotText),
        }
    }
}

impl Stamp {
    /// Of a version that is there. It may have a time at which it will be deleted (`delete_version_after`).
    fn of(number: u64, stamp: &json::Stamp) -> Self {
        let digest = Hash::hash(stamp.created_time.as_bytes());
        let time = digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Self { number, time }
    }
}

impl Entry {
    pub(crate) fn new(client: OpenBao, place: &str) -> Self {
        Self { client, place: place.into(), mount: Arc::default() }
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn client(&self) -> &OpenBao {
        &self.client
    }

    /// The same secret, for calls that have less time.
    pub(crate) fn within(&self, rest: Duration) -> Self {
        let deadline = rest.min(self.client.deadline());
        Self { client: self.client.clone().with_deadline(deadline), ..self.clone() }
    }

    /// The current version; `None` where none was ever written. Blocks.
    pub(crate) fn read(&self) -> Result<Option<SecretVersion>, OpenBaoError> {
        self.read_until(self.client.until())
    }

    fn read_until(&self, until: Instant) -> Result<Option<SecretVersion>, OpenBaoError> {
        let path = self.path("data", until)?;
        let answer = self.client.call(&Call::get(&path), READ, until)?;
        match answer.status {
            200 => {}
            404 => return self.nothing(&answer),
            status => return Err(OpenBaoError::Rejected { status }),
        }
        // A mount of version 1 answers without metadata.
        let stamp =
            json::read::<json::Answer<json::Data<'_>>>(&answer.body).map(|answer| answer.data.metadata);
        let stamp = stamp.ok_or_else(|| self.is_something_else(&answer))?;
        if stamp.destroyed {
            return Err(OpenBaoError::Destroyed { version: stamp.version });
        }
        let stamp = Stamp::of(stamp.version, &stamp);
        Ok(Some(SecretVersion { stamp, answer }))
    }

    /// Which version is the current one, without reading it. Blocks.
    pub(crate) fn current(&self) -> Result<Option<Stamp>, OpenBaoError> {
        self.current_until(self.client.until())
    }

    fn current_until(&self, until: Instant) -> Result<Option<Stamp>, OpenBaoError> {
        let path = self.path("metadata", until)?;
        let answer = self.client.call(&Call::get(&path), READ_METADATA, until)?;
        match answer.status {
            200 => {}
            404 => return self.nothing(&answer),
            status => return Err(OpenBaoError::Rejected { status }),
        }
        let answer: json::Answer<json::AllMetadata> =
            json::read(&answer.body).ok_or_else(|| self.is_something_else(&answer))?;
        let number = answer.data.current_version;
        if number == 0 {
            return Ok(None);
        }
        let stamp = answer.data.versions.get(&number.to_string());
        let stamp = stamp.ok_or(OpenBaoError::NotOpenBao { status: 200 })?;
        if stamp.destroyed {
            return Err(OpenBaoError::Destroyed { version: number });
        }
        if stamp.deletion_time.is_empty() {
            return Ok(Some(Stamp::of(number, stamp)));
        }
        // That time may be to come, and whether it is depends on OpenBao's clock alone.
        Ok(self.read_until(until)?.map(|secret| secret.stamp))
    }

    /// Writes a version if the current one is `unchanged` (with `None`: if none was ever written). `data` is
    /// an object. Blocks.
    pub(crate) fn write(&self, data: &[u8], unchanged: Option<Stamp>) -> Result<Written, OpenBaoError> {
        let until = self.client.until();
        // A mount of version 1 would write unconditionally, so the version is asked again.
        *self.mount.lock() = None;
        let path = self.path("data", until)?;
        // The number alone would also be that of a secret that was deleted and made again.
        if self.current_until(until)? != unchanged {
            return Ok(Written::Conflict);
        }
        let cas = unchanged.map_or(0, |unchanged| unchanged.number);
        let end = format!(",\"options\":{{\"cas\":{cas}}}}}");
        let mut body = WipedBytes::with_capacity(data.len() + end.len() + 16);
        body.append(b"{\"data\":");
        body.append(data);
        body.append(end.as_bytes());
        let answer = self.client.call(&Call::post(&path, body), WRITE, until)?;
        match answer.status {
            200 => {
                let answer: json::Answer<json::Stamp> = read(&answer)?;
                Ok(Written::Now(Stamp::of(answer.data.version, &answer.data)))
            }
            // It may be the earlier attempt that has written.
            400 if is_conflict(&answer) && answer.was_repeated => Err(OpenBaoError::Unsettled),
            400 if is_conflict(&answer) => Ok(Written::Conflict),
            404 => Err(not_there(&answer.body).unwrap_or(OpenBaoError::NoMount)),
            204 => Err(OpenBaoError::NotVersion2),
            status => Err(OpenBaoError::Rejected { status }),
        }
    }

    /// The path of the secret's data or metadata.
    fn path(&self, part: &str, until: Instant) -> Result<String, OpenBaoError> {
        let known = *self.mount.lock();
        let end = match known {
            Some(end) => end,
            None => self.find_mount(until)?,
        };
        *self.mount.lock() = Some(end);
        let (mount, path) = self.place.split_at(end);
        Ok(format!("{}{part}/{}", encoded(mount), encoded(path)))
    }

    /// Where the mount ends, its slash included. A mount may have slashes in its name, and only OpenBao knows
    /// it.
    fn find_mount(&self, until: Instant) -> Result<usize, OpenBaoError> {
        check_name(&self.place)?;
        let path = format!("sys/internal/ui/mounts/{}", encoded(&self.place));
        let call = Call::get(&path);
        let answer = match self.client.call(&call, READ, until) {
            Err(OpenBaoError::Forbidden { .. }) => return Err(OpenBaoError::NoMount),
            answer => answer?,
        };
        match answer.status {
            200 => {}
            404 => return Err(not_there(&answer.body).unwrap_or(OpenBaoError::NoMount)),
            status => return Err(OpenBaoError::Rejected { status }),
        }
        let answer: json::Answer<json::Mount> = read(&answer)?;
        let mount = answer.data;
        let version = mount.options.and_then(|options| options.version);
        if mount.kind != "kv" || version.as_deref() != Some("2") {
            return Err(OpenBaoError::NotVersion2);
        }
        let is_above = self.place.starts_with(&mount.path) && mount.path.ends_with('/');
        if !is_above || mount.path.len() >= self.place.len() {
            return Err(OpenBaoError::NoMount);
        }
        Ok(mount.path.len())
    }

    /// What a 404 means: that there is nothing, or that there is no place for it, or that what was there is
    /// gone.
    fn nothing<T>(&self, answer: &Answered) -> Result<Option<T>, OpenBaoError> {
        if let Some(error) = not_there(&answer.body) {
            // What was mounted there may not be any more.
            *self.mount.lock() = None;
            return Err(error);
        }
        let answer =
            json::Errors::read(&answer.body).ok_or(OpenBaoError::NotOpenBao { status: answer.status })?;
        match answer.data {
            None => Ok(None),
            Some(data) => {
                let version = data.metadata.version;
                Err(if data.metadata.destroyed {
                    OpenBaoError::Destroyed { version }
                } else if data.metadata.deletion_time.is_empty() {
                    OpenBaoError::NotOpenBao { status: 404 }
                } else {
                    OpenBaoError::Deleted { version }
                })
            }
        }
    }

    /// What an answer is that is none of version 2.
    fn is_something_else(&self, answer: &Answered) -> OpenBaoError {
        *self.mount.lock() = None;
        match json::read::<json::Answer<serde::de::IgnoredAny>>(&answer.body) {
            Some(_) => OpenBaoError::NotVersion2,
            None => OpenBaoError::NotOpenBao { status: answer.status },
        }
    }
}

fn is_conflict(answer: &Answered) -> bool {
    json::says(&answer.body, "check-and-set parameter did not match")
}
