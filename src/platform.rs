//! The refusal to build where a key would sit on a device that its owner does not control.
//!
//! This file stands alone so that a test can compile it for targets whose standard library
//! is not installed.

#[cfg(any(all(target_family = "wasm", target_os = "unknown"), target_os = "android", target_os = "ios",))]
compile_error!(
    "keysheath does not build for browsers or phones: an API key belongs on a server. \
     Call your own backend from this target, and let the backend hold the key."
);
