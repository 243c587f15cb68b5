//! Keys that change: document stores, rotations, the presence of a fleet, refreshers and watched files.

#[path = "../support/mod.rs"]
mod support;

#[cfg(all(feature = "rotation", target_os = "linux"))]
mod document;
#[cfg(all(feature = "rotation", target_os = "linux"))]
mod presence;
#[cfg(all(target_os = "linux", feature = "rotation"))]
mod refresh;
#[cfg(all(feature = "rotation", target_os = "linux"))]
mod rotator;
#[cfg(all(target_os = "linux", feature = "watch"))]
mod watch;
