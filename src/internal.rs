//! What modules share and users never see.

#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod back_off;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod background;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod clocks;
pub(crate) mod bytes;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod calls;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod contained;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod events;
pub(crate) mod files;
#[cfg(any(feature = "openbao", feature = "rotation"))]
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod json_form;
pub(crate) mod json_text;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod lock;
pub(crate) mod printable;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod utc;
