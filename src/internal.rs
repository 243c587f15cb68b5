//! What modules share and users never see.

pub(crate) mod background;
pub(crate) mod bytes;
pub(crate) mod calls;
pub(crate) mod events;
pub(crate) mod files;
#[cfg(any(feature = "openbao", feature = "rotation"))]
pub(crate) mod json_form;
pub(crate) mod json_text;
pub(crate) mod panics;
pub(crate) mod printing;
pub(crate) mod time;
