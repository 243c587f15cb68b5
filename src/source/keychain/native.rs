//! The keychain of macOS and the Credential Manager of Windows. Both unlock by themselves, and hold one item
//! of a name.

use std::collections::HashMap;
use std::sync::Arc;

use keyring_core::{CredentialStore, Error};
use zeroize::Zeroize;

use super::Problem;

use crate::internal::bytes::WipedBytes;

/// Why a call failed.
pub(super) enum Fault {
    /// The keychain failed in a way that a new store may not.
    Lost,
    Problem(Problem),
}

/// An open keychain.
pub(super) struct Store(Arc<CredentialStore>);

/// The items that a call is about.
pub(super) struct Items<'a> {
    pub(super) service: &'a str,
    /// Every item of the service, where there is no name.
    pub(super) name: Option<&'a str>,
    #[allow(dead_code, reason = "there is one collection here")]
    pub(super) in_default_collection: bool,
}

/// What asks a person here is the system's, and cannot be taken away.
#[derive(Clone, Default)]
pub(super) struct Prompts;

impl Prompts {
    #[allow(clippy::unused_self, reason = "the signature is the one that the Secret Service needs")]
    pub(super) const fn end(&self) {}
}

impl Store {
    #[cfg(target_os = "macos")]
    pub(super) fn open() -> Result<Self, Problem> {
        let store = apple_native_keyring_store::keychain::Store::new();
        Ok(Self(store.map_err(|_| Problem::NoKeychain)?))
    }

    #[cfg(windows)]
    pub(super) fn open() -> Result<Self, Problem> {
        let store = windows_native_keyring_store::Store::new();
        Ok(Self(store.map_err(|_| Problem::NoKeychain)?))
    }

    pub(super) fn load(&self, items: &Items<'_>, _: &Prompts) -> Result<Option<WipedBytes>, Fault> {
        Ok(found(self.entry(items)?.get_secret())?.map(WipedBytes::from))
    }

    pub(super) fn load_all(&self, items: &Items<'_>, prompts: &Prompts) -> Result<Vec<WipedBytes>, Fault> {
        Ok(Vec::from_iter(self.load(items, prompts)?))
    }

    pub(super) fn save(&self, items: &Items<'_>, secret: &[u8], _: &Prompts) -> Result<(), Fault> {
        Ok(self.entry(items)?.set_secret(secret)?)
    }

    pub(super) fn delete(&self, items: &Items<'_>, _: &Prompts) -> Result<bool, Fault> {
        Ok(found(self.entry(items)?.delete_credential())?.is_some())
    }

    /// Deletes every item but one that `is_kept` is true of; `None` where there is none.
    pub(super) fn keep_one(
        &self,
        items: &Items<'_>,
        is_kept: impl Fn(&[u8]) -> bool,
        prompts: &Prompts,
    ) -> Result<Option<usize>, Fault> {
        Ok(self.load(items, prompts)?.is_some_and(|secret| is_kept(&secret)).then_some(0))
    }

    /// The names of the service's items.
    pub(super) fn names(&self, items: &Items<'_>, _: &Prompts) -> Result<Vec<String>, Fault> {
        let found = self.0.search(&search_for(items.service))?;
        let names = found.iter().filter_map(keyring_core::Entry::get_specifiers);
        Ok(names.filter(|(service, _)| service == items.service).map(|(_, name)| name).collect())
    }

    fn entry(&self, items: &Items<'_>) -> Result<keyring_core::Entry, Fault> {
        Ok(self.0.build(items.service, items.name.unwrap_or_default(), None)?)
    }
}

fn found<T>(outcome: keyring_core::Result<T>) -> Result<Option<T>, Fault> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl From<Error> for Fault {
    /// Keeps what the error is and drops what it carries: some of them carry the secret.
    fn from(error: Error) -> Self {
        Self::Problem(match error {
            Error::PlatformFailure(_) => return Self::Lost,
            Error::Ambiguous(items) => Problem::Ambiguous { count: items.len() },
            Error::NoStorageAccess(_) => Problem::NoAccess,
            Error::TooLong(..) | Error::Invalid(..) => Problem::NotStorable,
            Error::BadEncoding(mut secret) | Error::BadDataFormat(mut secret, _) => {
                secret.zeroize();
                Problem::Unreachable
            }
            _ => Problem::Unreachable,
        })
    }
}

/// The Windows store searches by a pattern over whole names, so there every item is looked at.
#[cfg(windows)]
fn search_for(_: &str) -> HashMap<&'static str, &str> {
    HashMap::new()
}

#[cfg(target_os = "macos")]
fn search_for(service: &str) -> HashMap<&'static str, &str> {
    HashMap::from([("service", service)])
}
