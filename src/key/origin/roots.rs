//! The certificate authorities that are trusted for an origin.

use std::fmt;
use std::sync::Arc;

use ureq::tls::{PemItem, parse_pem};

/// The most certificates that are accepted: public sets have about 150.
const MAX_ROOTS: usize = 1024;

/// The certificates of your own authorities, trusted for an origin in place of the built-in public ones
/// (Mozilla's).
///
/// ```no_run
/// use keysheath::client::OriginGuard;
/// use keysheath::key::{Katana, Origin, Roots};
/// use keysheath::probe::KatanaProbe;
///
/// let roots = Roots::from_pem(&std::fs::read("/etc/ssl/shop-ca.pem")?)?;
/// let gateway = OriginGuard::<Katana>::for_https(Origin::parse("https://gateway.example")?)?;
/// let probe = KatanaProbe::new().with_guard(gateway).with_roots(roots);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Roots(Arc<[Vec<u8>]>);

/// A text is not a set of roots. The error holds no part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// There is no certificate in the text.
    #[error(
        "there is no certificate in it: give the authority's in PEM, with its BEGIN CERTIFICATE and END \
         CERTIFICATE lines"
    )]
    NoCertificate,
    /// The text is not PEM.
    #[error("it is not complete PEM: give it as the authority's tool wrote it")]
    NotPem,
    /// There is a private key in the text, which does not belong here.
    #[error(
        "there is a private key in it: give the certificates alone, and check who else can read that key"
    )]
    PrivateKey,
    /// There are more than 1024 certificates.
    #[error("there are more than {MAX_ROOTS} certificates in it: give only those of your own authorities")]
    TooMany,
}

impl Roots {
    /// Parses one or more certificates in PEM. Whether each is an authority's is checked when a server is
    /// contacted: a certificate that is not one has no effect.
    ///
    /// # Errors
    /// [`RootsError`] if there is no certificate, too many, something that is not PEM, or a private key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut roots = Vec::new();
        for item in parse_pem(pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => roots.push(certificate.der().to_vec()),
                Ok(PemItem::PrivateKey(_)) => return Err(RootsError::PrivateKey),
                // A kind of item that a later version of the parser knows.
                Ok(_) => {}
                Err(_) => return Err(RootsError::NotPem),
            }
            if roots.len() > MAX_ROOTS {
                return Err(RootsError::TooMany);
            }
        }
        if roots.is_empty() {
            return Err(RootsError::NoCertificate);
        }
        Ok(Self(roots.into()))
    }

    /// The number of certificates; never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each certificate in DER.
    pub(crate) fn der(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({} certificates)", self.len())
    }
}
