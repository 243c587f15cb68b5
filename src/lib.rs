#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod platform;

// In the order in which a key flows through them; each imports only from those above it.
pub mod origin;
pub mod failure;
pub mod format;
pub mod fingerprint;
pub mod issuer;
pub mod key;
pub mod source;
pub mod keyref;
pub mod chain;
#[cfg(feature = "client")]
pub mod client;
