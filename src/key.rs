//! A key, its issuer, its format, its fingerprint, and the origin that it is sent to.
//!
//! [`ApiKey`] carries its issuer in its type, so that a Kanal key cannot be passed where a Katana key is
//! wanted. [`RawKey`] is the same key with its issuer as a value, for code that serves both.
//!
//! # Security
//! The text is in memory while the key lives: code that can read the memory of this process can read the key.
//! Moving an `ApiKey` moves a pointer, not the text. Copies made from [`ApiKey::expose_secret`] belong to the
//! caller. SECURITY.md lists what other libraries and the operating system keep.
//!
//! ```
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
//! assert!(key.matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
//! assert_eq!(format!("{key:?}"), "ApiKey(kanal, urdz-nrsd-3rmw-jtz2)");
//! # Ok::<(), keysheath::key::FormatError>(())
//! ```

mod api_key;
pub(crate) mod fingerprint;
pub(crate) mod format;
pub(crate) mod issuer;
pub(crate) mod origin;

pub use api_key::{ApiKey, IssuerMismatch, RawKey};
pub use fingerprint::{Fingerprint, FingerprintError, MIN_ENTROPY_BITS};
pub use format::{FormatError, FormatRule, Hint, KeyFormat, MAX_KEY_LENGTH};
#[cfg(feature = "oauth")]
pub use issuer::KatanaApp;
pub use issuer::{Issuer, Kanal, Katana, Profile, StoreId, StoreIdError};
pub use origin::{Origin, OriginError, Scheme};
#[cfg(any(feature = "oauth", feature = "openbao", feature = "probe"))]
pub use origin::{Roots, RootsError};
