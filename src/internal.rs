//! What modules share and users never see.

#[allow(dead_code, reason = "used with some features only")]
pub(crate) mod clocks;
#[allow(dead_code, reason = "the first user follows")]
pub(crate) mod printable;
