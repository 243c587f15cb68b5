//! API keys of Kanal and Katana: load a key, keep it out of logs, send it only to its issuer, and rotate it
//! without a failed request.
//!
//! ```
//! use keysheath::source::SecretFile;
//! use keysheath::{ApiKey, Chain, Kanal};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("kanal");
//! std::fs::write(&path, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\n")?;
//!
//! let loaded = Chain::<Kanal>::new().with(SecretFile::new(&path)).load()?;
//! let key: &ApiKey<Kanal> = loaded.key();
//! assert_eq!(format!("{key:?}"), "ApiKey(kanal, urdz-nrsd-3rmw-jtz2)"); // a fingerprint, never the key
//! let text: &str = key.expose_secret(); // the only way to read it, easy to find in a review
//! # assert_eq!(text.len(), 24);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! In the order in which a key flows through them:
//!
//! | module | feature | holds |
//! |---|---|---|
//! | [`failure`] | | the answers that an issuer documents, and what each means |
//! | [`key`] | | [`ApiKey`], its [issuer](Issuer), format, [`Fingerprint`] and [`Origin`] |
//! | [`openbao`] | `openbao` | the client of OpenBao, which source and store share |
//! | [`source`] | | the places that a key is loaded from; [key references](KeyRef) for config files |
//! | [`chain`] | | [`Chain`]: sources in order, and what each answered |
//! | [`handle`] | `client`, `rotation` | [`KeyHandle`]: the live view of the active key |
//! | [`store`] | `rotation` | where a rotation persists its keys |
//! | [`keyset`] | `rotation` | the state machine of a rotation |
//! | [`refresh`] | `rotation` | keeping a handle up to date from a source or a store |
//! | [`client`] | `client` | the `Authorization` header, the origin guard, reading answers, tower layers |
//! | [`probe`] | `probe` | requests that tell whether a key works |
//! | [`rotation`] | `rotation` | the steps of a rotation, status and audit; the presence of a fleet |
//! | [`oauth`] | `oauth` | Katana's OAuth 2.0 for app partners |
//! | [`registry`] | `registry` | the other side: keys created, listed, deleted and authorized |
//! | [`emulator`] | `emulator` | a local server that answers as Kanal and Katana document |
//!
//! A module whose feature is off is not in this build; links then lead to docs.rs. A feature adds names and
//! never changes behaviour.
//!
//! # The guide
//!
//! The [guide] has a page for each task: [loading], [sending], [rotating], [a fleet][fleet],
//! [OAuth][guide-oauth], [protecting a service][protecting], [testing], [stores], [a custom issuer][issuer],
//! [integrations], [performance], [features], and a [glossary].
//!
//! # Conventions
//!
//! - **One type for each issuer.** [`ApiKey<Kanal>`](ApiKey) and `ApiKey<Katana>` do not mix.
//!   [`RawKey`](key::RawKey) is a key whose issuer is a value, for code that serves both.
//! - **Absent is not broken.** A source that has nothing lets a chain go on. A source that is malformed or
//!   cannot be read ends the search: the next one may hold the key of another account.
//! - **Errors hold no input.** They say what failed, where, and what to do next. Print them with `{error}`.
//! - **What may block has a deadline.** Loading, stores, probes and rotations block and need no async
//!   runtime. In async code, call them through `spawn_blocking`. Reading a [`KeyHandle`] does not block.
//! - **Persist, then publish.** A handle never has a key that its store does not have.
//! - **One cadence, one health.** Everything that polls takes a [`Cadence`], and its status has a [`Health`].
//!   What is wrong with a file is a [`FileProblem`], whatever the file is for.
//! - **Inconclusive is not refused.** A timeout, a 429 or a 5xx never says that a key is bad.
//!
//! What is promised, the test for each promise, and what is not promised: [SECURITY.md][security].
//!
//! # Platforms
//!
//! Linux is tested. macOS and Windows have their keychains wired in and are not run. The crate refuses to
//! build for browsers and phones, because a key belongs on a server. The minimum Rust version is 1.88.
//!
//! [guide]: https://docs.rs/keysheath/latest/keysheath/guide/
//! [loading]: https://docs.rs/keysheath/latest/keysheath/guide/loading/
//! [sending]: https://docs.rs/keysheath/latest/keysheath/guide/sending/
//! [rotating]: https://docs.rs/keysheath/latest/keysheath/guide/rotating/
//! [fleet]: https://docs.rs/keysheath/latest/keysheath/guide/fleet/
//! [guide-oauth]: https://docs.rs/keysheath/latest/keysheath/guide/oauth/
//! [protecting]: https://docs.rs/keysheath/latest/keysheath/guide/protecting/
//! [testing]: https://docs.rs/keysheath/latest/keysheath/guide/testing/
//! [stores]: https://docs.rs/keysheath/latest/keysheath/guide/stores/
//! [issuer]: https://docs.rs/keysheath/latest/keysheath/guide/issuer/
//! [integrations]: https://docs.rs/keysheath/latest/keysheath/guide/integrations/
//! [performance]: https://docs.rs/keysheath/latest/keysheath/guide/performance/
//! [features]: https://docs.rs/keysheath/latest/keysheath/guide/features/
//! [glossary]: https://docs.rs/keysheath/latest/keysheath/guide/glossary/
//! [security]: https://docs.rs/keysheath/latest/keysheath/guide/security/
#![cfg_attr(
    not(all(feature = "emulator", feature = "oauth", feature = "openbao")),
    doc = "[`client`]: https://docs.rs/keysheath/latest/keysheath/client/
[`emulator`]: https://docs.rs/keysheath/latest/keysheath/emulator/
[`handle`]: https://docs.rs/keysheath/latest/keysheath/handle/
[`keyset`]: https://docs.rs/keysheath/latest/keysheath/keyset/
[`oauth`]: https://docs.rs/keysheath/latest/keysheath/oauth/
[`openbao`]: https://docs.rs/keysheath/latest/keysheath/openbao/
[`refresh`]: https://docs.rs/keysheath/latest/keysheath/refresh/
[`registry`]: https://docs.rs/keysheath/latest/keysheath/registry/
[`rotation`]: https://docs.rs/keysheath/latest/keysheath/rotation/
[`store`]: https://docs.rs/keysheath/latest/keysheath/store/
[`KeyHandle`]: https://docs.rs/keysheath/latest/keysheath/handle/struct.KeyHandle.html"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(all(
        feature = "dotenv",
        feature = "emulator",
        feature = "oauth",
        feature = "openbao",
        feature = "sqlite",
        feature = "tracing"
    )),
    allow(dead_code, unused_variables, reason = "a build with all features shows what is unused")
)]

mod internal {
    //! What modules share and users never see.

    pub(crate) mod bytes;
    pub(crate) mod calls;
    pub(crate) mod events;
    pub(crate) mod files;
    #[cfg(any(feature = "openbao", feature = "rotation"))]
    pub(crate) mod json_form;
    pub(crate) mod json_text;
    pub(crate) mod threads;
    pub(crate) mod printing;
    pub(crate) mod time;
    pub(crate) mod timer;
}
mod platform;

// In the order in which a key flows through them; each imports only from those above it.
pub mod failure;
pub mod key;
#[cfg(any(feature = "oauth", feature = "openbao", feature = "probe"))]
mod outgoing;
#[cfg(feature = "openbao")]
pub mod openbao;
pub mod source;
pub mod chain;
#[cfg(any(feature = "client", feature = "rotation"))]
pub mod handle;
#[cfg(feature = "rotation")]
pub mod store;
#[cfg(feature = "rotation")]
pub mod keyset;
#[cfg(feature = "rotation")]
pub mod refresh;
#[cfg(feature = "client")]
pub mod client;
pub mod probe;
#[cfg(feature = "rotation")]
pub mod rotation;
#[cfg(feature = "oauth")]
pub mod oauth;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "emulator")]
pub mod emulator;
/// A page for each task, and SECURITY.md. The same pages are in the folder `docs/` of the repository and of
/// the package. This module is only in the docs.
#[cfg(all(
    any(doc, doctest),
    feature = "dotenv",
    feature = "emulator",
    feature = "keychain",
    feature = "oauth",
    feature = "openbao",
    feature = "probe",
    feature = "reqwest",
    feature = "serde",
    feature = "sqlite",
))]
#[cfg_attr(docsrs, doc(auto_cfg = false))]
pub mod guide {
    #[doc = include_str!("../docs/loading.md")]
    pub mod loading {}
    #[doc = include_str!("../docs/sending.md")]
    pub mod sending {}
    #[doc = include_str!("../docs/rotating.md")]
    pub mod rotating {}
    #[doc = include_str!("../docs/fleet.md")]
    pub mod fleet {}
    #[doc = include_str!("../docs/oauth.md")]
    pub mod oauth {}
    #[doc = include_str!("../docs/protecting.md")]
    pub mod protecting {}
    #[doc = include_str!("../docs/testing.md")]
    pub mod testing {}
    #[doc = include_str!("../docs/stores.md")]
    pub mod stores {}
    #[doc = include_str!("../docs/issuer.md")]
    pub mod issuer {}
    #[doc = include_str!("../docs/integrations.md")]
    pub mod integrations {}
    // rustdoc copies no images, but shows one that is a part of the text.
    #[doc = include_str!("../docs/performance.md")]
    #[doc = ""]
    #[doc = include_str!("../docs/registry.svg")]
    pub mod performance {}
    #[doc = include_str!("../docs/features.md")]
    pub mod features {}
    #[doc = include_str!("../docs/glossary.md")]
    pub mod glossary {}
    #[doc = include_str!("../SECURITY.md")]
    pub mod security {}

    #[cfg(doctest)]
    #[doc = include_str!("../README.md")]
    mod readme {}
}

pub use crate::internal::{files::FileProblem, threads::Health, time::Cadence};

// What a first program needs.
#[cfg(any(feature = "client", feature = "rotation"))]
#[doc(no_inline)]
pub use crate::handle::KeyHandle;
#[doc(no_inline)]
pub use crate::{
    chain::{Chain, ChainError},
    key::{ApiKey, Fingerprint, Issuer, Kanal, Katana, Origin, StoreId},
    source::{KeyRef, Source},
};
