//! P2: on our own paths no freed heap block still holds a key. The report measures what other libraries
//! leave.
//!
//! A binary of its own, for its allocator: it looks at every block that is freed. Each scenario runs in a
//! process of its own, because the allocator does not tell one thread's blocks from another's. `cargo test
//! --test residue -- --nocapture` prints a line for each.

#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "rotation")]
mod document;
#[cfg(feature = "rotation")]
mod keyset;
mod no_residue;
#[cfg(feature = "oauth")]
mod oauth;
#[cfg(all(feature = "openbao", feature = "rotation"))]
mod openbao;
#[cfg(feature = "openbao")]
mod openbao_login;
#[cfg(feature = "probe")]
mod probe;
#[cfg(feature = "rotation")]
mod refresh;
#[cfg(all(feature = "client", feature = "dotenv", feature = "keychain"))]
mod report;
#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "rotation")]
mod rotation;
#[cfg(all(feature = "dotenv", feature = "openbao", feature = "rotation"))]
mod stacks;

use support::residue::Switch;

#[global_allocator]
static ALLOCATOR: Switch = Switch::new();
