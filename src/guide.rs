//! One page for each task. The same pages are in the folder `docs/` of the repository and of the package.

#[doc = include_str!("../docs/loading.md")]
pub mod loading {}
#[doc = include_str!("../docs/sending.md")]
pub mod sending {}
#[doc = include_str!("../docs/rotating.md")]
pub mod rotating {}
#[doc = include_str!("../docs/fleet.md")]
pub mod fleet {}
#[doc = include_str!("../docs/oauth.md")]
pub mod oauth {}
#[doc = include_str!("../docs/protecting.md")]
pub mod protecting {}
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}
#[doc = include_str!("../docs/stores.md")]
pub mod stores {}
#[doc = include_str!("../docs/issuer.md")]
pub mod issuer {}
#[doc = include_str!("../docs/integrations.md")]
pub mod integrations {}
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}
#[doc = include_str!("../docs/features.md")]
pub mod features {}
#[doc = include_str!("../docs/glossary.md")]
pub mod glossary {}
#[doc = include_str!("../SECURITY.md")]
pub mod security {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
