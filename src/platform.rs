//! The refusal to build where a key would sit on a device that its user holds, and not on a server of its
//! owner.
//!
//! This file stands alone so that a test can compile it for targets whose standard library
//! is not installed.

#[cfg(any(
    all(target_family = "wasm", target_os = "unknown"),
    target_os = "emscripten",
    target_os = "android",
    target_os = "ios",
    target_os = "tvos",
    target_os = "watchos",
    target_os = "visionos",
    target_env = "ohos",
))]
compile_error!(
    "keysheath does not build for browsers, phones and the like: an API key belongs on a server. \
     Call your own backend from this target, and let the backend hold the key."
);
