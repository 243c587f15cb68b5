//! The server side: the registry in memory and in SQLite, and the layer that requires a key.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "registry")]
mod memory;
#[cfg(feature = "registry")]
mod require_key;
#[cfg(all(target_os = "linux", feature = "sqlite"))]
mod sqlite;
