//! Document stores: the contract that each keeps, many writers at once, broken files, and writers that are
//! killed.

mod contract;
mod files;
#[cfg(feature = "keychain")]
mod keychain;
mod killed;
#[cfg(feature = "openbao")]
mod openbao;
mod neighbors;
mod racing;
mod silent;

use std::path::PathBuf;

use keysheath::store::{Document, DocumentContent, DocumentStore, FileStore};

use crate::support::Folder;

/// The largest content of a document in memory, in a file and in OpenBao.
const MAX_DOCUMENT: usize = 32_768;

/// A folder that is this user's alone, and in it the path of a document.
fn place() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let path = folder.at("document");
    (folder, path)
}

fn content(text: impl AsRef<[u8]>) -> DocumentContent {
    DocumentContent::from(text.as_ref().to_vec())
}

/// The document that must be there.
#[track_caller]
fn there(store: &dyn DocumentStore) -> Document {
    store.read().expect("it can be read").expect("it is there")
}

#[track_caller]
fn text(store: &dyn DocumentStore) -> String {
    String::from_utf8(there(store).content().expose_secret().to_vec()).unwrap()
}

/// A store whose document holds `first`.
fn written() -> (Folder, FileStore) {
    let (folder, path) = place();
    let store = FileStore::new(path);
    store.write(&content("first"), None).unwrap();
    (folder, store)
}
