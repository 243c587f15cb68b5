//! What modules share and users never see.

#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod background;
pub(crate) mod bytes;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod calls;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod events;
pub(crate) mod files;
#[cfg(any(feature = "openbao", feature = "rotation"))]
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod json_form;
pub(crate) mod json_text;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod panics;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod printing;
#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod time;
