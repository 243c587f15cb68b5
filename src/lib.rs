// The README's examples use these features; with fewer, its first lines must do.
#![cfg_attr(
    all(
        feature = "client",
        feature = "emulator",
        feature = "keychain",
        feature = "dotenv",
        feature = "oauth",
        feature = "openbao",
        feature = "probe",
        feature = "rotation"
    ),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(
        feature = "client",
        feature = "emulator",
        feature = "keychain",
        feature = "dotenv",
        feature = "oauth",
        feature = "openbao",
        feature = "probe",
        feature = "rotation"
    )),
    doc = "API credentials for Kanal and Katana tools. The README, with examples, is these docs when the \
           features `client`, `dotenv`, `emulator`, `keychain`, `oauth`, `openbao`, `probe` and `rotation` are on."
)]
#![forbid(unsafe_code)]

mod internal;
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
// Drives the top from the bottom, through what is not public.
#[cfg(all(test, feature = "client", feature = "emulator", feature = "rotation"))]
mod live_tests;

// What a first program needs.
#[doc(no_inline)]
pub use crate::{
    chain::{Chain, ChainError},
    handle::KeyHandle,
    key::{ApiKey, Fingerprint, Issuer, Kanal, Katana, Origin, StoreId},
    source::{KeyRef, Source},
};
