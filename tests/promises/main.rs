//! The promises of SECURITY.md: one module for each, or for each part of one. `cargo test --test promises p7`
//! runs those of P7.
//!
//! Other binaries hold what needs a surrounding of its own: P2 is `residue`, P3 the package
//! `p3_constant_time`, P12 `p12_untrusted_bytes`; what needs a real keychain or a real OpenBao is in
//! `keychain` and `openbao`.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "registry")]
mod p10_deleted_is_refused;
#[cfg(all(unix, feature = "client", feature = "dotenv", feature = "probe", feature = "serde"))]
mod p1_no_key_text;
#[cfg(all(feature = "registry", feature = "tracing"))]
mod p1_server;
#[cfg(feature = "client")]
mod p4_layers;
#[cfg(feature = "client")]
mod p4_only_to_its_issuer;
#[cfg(feature = "probe")]
mod p4_probe;
#[cfg(all(feature = "client", feature = "serde"))]
mod p5_issuers_apart;
#[cfg(unix)]
mod p6_absent_is_not_broken;
#[cfg(all(unix, feature = "rotation"))]
mod p6_refresh;
#[cfg(all(feature = "rotation", target_os = "linux"))]
mod p7_rotation_survives;
#[cfg(all(feature = "client", feature = "emulator", feature = "probe", feature = "rotation"))]
mod p8_no_failed_request;
#[cfg(all(feature = "emulator-tls", feature = "probe"))]
mod p9_faults;
#[cfg(feature = "probe")]
mod p9_inconclusive_is_not_refused;
