//! What modules share and users never see.

#[cfg(feature = "oauth")]
pub(crate) mod boot_clock;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod clocks;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod contained;
#[cfg(any(feature = "rotation", feature = "tracing"))]
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod events;
pub(crate) mod json_text;
pub(crate) mod paths;
pub(crate) mod printable;
