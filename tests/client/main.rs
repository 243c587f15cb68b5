//! Sending keys: the tower layers, the reqwest middleware, retries, probes, and the programs that send
//! requests.

#[path = "../support/mod.rs"]
mod support;

#[cfg(all(feature = "client", feature = "emulator", feature = "rotation"))]
mod demo;
#[cfg(all(feature = "client", feature = "dotenv", feature = "emulator"))]
mod first_request;
#[cfg(feature = "client")]
mod layers;
#[cfg(all(feature = "client", feature = "emulator", feature = "rotation"))]
mod live;
#[cfg(feature = "probe")]
mod probe;
#[cfg(all(unix, feature = "reqwest"))]
mod reqwest;
#[cfg(feature = "client")]
mod retry;
