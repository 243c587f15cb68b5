//! Documents in OpenBao, with the real server.

use std::thread;

use super::MAX_DOCUMENT;
use keysheath::store::OpenBaoStore;

use super::contract::keeps_the_contract;
use super::racing::add_one;
use super::*;
use crate::support::openbao::Server;

#[test]
fn a_document_in_openbao_keeps_the_contract() {
    let server = Server::start();
    // Clients of their own, as another process has.
    keeps_the_contract(&|name| Box::new(OpenBaoStore::new(server.root(), format!("secret/shop/{name}"))));
    let store = OpenBaoStore::new(server.root(), "secret/shop/keys");
    assert_eq!(store.limit(), MAX_DOCUMENT);
    assert_eq!(store.provenance().to_string(), "openbao secret/shop/keys");
    assert_eq!(store.version(), Ok(None));
    let written = store.write(&content("text"), None).unwrap();
    assert_eq!(store.version(), Ok(Some(written)));
}

#[test]
fn threads_with_clients_of_their_own_lose_nothing() {
    let server = Server::start();
    thread::scope(|scope| {
        for _ in 0..3 {
            let store = OpenBaoStore::new(server.root(), "secret/count");
            scope.spawn(move || (0..20).map(|_| add_one(&store)).sum::<usize>());
        }
    });
    assert_eq!(text(&OpenBaoStore::new(server.root(), "secret/count")), "60");
}
