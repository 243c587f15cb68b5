//! Tokens and what they are obtained with.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use http::HeaderValue;
use subtle::ConstantTimeEq as _;

use super::OpenBaoError;
use crate::internal::bytes::{WipedBytes, read_at_most};
use crate::internal::trusted_file;
use crate::internal::trusted_file::{Kind, Trust, Untrusted};

/// The longest token, role, secret ID or JWT, in bytes. A batch token has some hundreds, a JWT up to some thousands.
const MAX_CREDENTIAL: usize = 8192;

/// Bytes that are wiped when dropped, and printable ASCII.
pub(super) struct Secret(WipedBytes);

impl Secret {
    /// Takes the block over as it is.
    pub(super) fn new(bytes: WipedBytes) -> Result<Self, OpenBaoError> {
        let is_plain = bytes.iter().all(u8::is_ascii_graphic);
        let fits = (1..=MAX_CREDENTIAL).contains(&bytes.len());
        if is_plain && fits { Ok(Self(bytes)) } else { Err(OpenBaoError::BadCredential) }
    }

    /// The first line of a file that is this user's, root's or a trusted one's.
    pub(super) fn from_file(path: &Path, trust: Trust) -> Result<Self, OpenBaoError> {
        let mut bytes = read(path, MAX_CREDENTIAL + 2, trust)?;
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        Self::new(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn copy(&self) -> Self {
        Self(WipedBytes::copy_of(&self.0))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// A header's value that shares the memory with its clones, and that nothing prints.
    pub(super) fn header(&self) -> Result<HeaderValue, OpenBaoError> {
        let shared = Bytes::from_owner(self.copy().0);
        let mut value = HeaderValue::from_maybe_shared(shared).map_err(|_| OpenBaoError::BadCredential)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Reads a file that others cannot have written, into one block. May hang.
pub(super) fn read(path: &Path, limit: usize, trust: Trust) -> Result<WipedBytes, OpenBaoError> {
    let refused = |rule| OpenBaoError::FileRefused { path: path.into(), rule };
    let file = trusted_file::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenBaoError::NoFile { path: path.into() },
        _ => refused("this user cannot open it: check its rights and those of each directory above it"),
    })?;
    check(&file, trust).map_err(refused)?;
    let bytes = read_at_most(file, limit).map_err(|_| refused("it cannot be read: check the disk"))?;
    bytes.ok_or(refused("it is too large: name the file that holds this alone"))
}

/// The one who can write the file chooses who this process is, or whom it trusts.
fn check(file: &File, trust: Trust) -> Result<(), &'static str> {
    let metadata = file.metadata().map_err(|_| "it cannot be looked at: check the disk")?;
    let kind = trusted_file::check(&metadata, trust).map_err(|untrusted| match untrusted {
        Untrusted::NotAFile => "it is no regular file: name the file itself",
        Untrusted::ForeignOwner { .. } => {
            "it belongs to another user: chown it to root or to yourself, or trust that user with Login::with_trusted_owner"
        }
        Untrusted::WritableByOthers { .. } => "others can write it: chmod go-w it",
        Untrusted::WritableByGroup { .. } => {
            "its group can write it: chmod g-w it, or trust that group with Login::with_trusted_group"
        }
    })?;
    if kind == Kind::Pipe { Err("it is no regular file: name the file itself") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_printable_and_bounded() {
        let secret = |text: &str| Secret::new(WipedBytes::copy_of(text.as_bytes()));
        for text in ["", "a b", "a\nb", "é", &"a".repeat(MAX_CREDENTIAL + 1)] {
            assert_eq!(secret(text).err(), Some(OpenBaoError::BadCredential), "{}", text.len());
        }
        let longest = secret(&"a".repeat(MAX_CREDENTIAL)).unwrap();
        assert!(longest.header().unwrap().is_sensitive());
        assert!(longest.is(&longest.copy()) && !longest.is(&secret("a").unwrap()));
    }
}
