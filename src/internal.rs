//! What modules share and users never see.

#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod clocks;
pub(crate) mod printable;
