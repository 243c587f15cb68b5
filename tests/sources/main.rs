//! Where a key comes from: each source, references to sources, and the chain that asks them in order.

#[path = "../support/mod.rs"]
mod support;

#[cfg(unix)]
mod chain;
#[cfg(target_os = "linux")]
mod command;
#[cfg(all(target_os = "linux", feature = "dotenv"))]
mod dotenv;
#[cfg(unix)]
mod environment;
#[cfg(target_os = "linux")]
mod fingerprint;
#[cfg(target_os = "linux")]
mod kept_threads;
mod key_reference;
#[cfg(feature = "serde")]
mod key_reference_serde;
#[cfg(target_os = "linux")]
mod secret_file;
#[cfg(unix)]
mod systemd;
