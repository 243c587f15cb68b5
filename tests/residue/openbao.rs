//! P2, for OpenBao: reading a key and keeping a document there leave no freed heap block with the key in it.
//!
//! The servers run in processes of their own, because their buffers would be found otherwise.

use keysheath::key::{Issuer as _, Kanal, Origin, Roots};
use keysheath::openbao::{Login, OpenBao};
use keysheath::source::{self, Loaded, OpenBaoField};
use keysheath::store::{DocumentContent, DocumentError, DocumentStore, OpenBaoStore};
use serde_json::json;

use crate::support::answering::{Answering, measured};
use crate::support::openbao::{ROOT, Server};
use crate::support::residue::{KEY, NONE, Residue, alone, residue_of, residue_when_wiping};

fn client() -> OpenBao {
    let variable = |name: &str| std::env::var(name).unwrap();
    // The token is the key as well: it is looked for in the same way.
    let client =
        OpenBao::at(Origin::parse(&variable("BAO")).unwrap(), Login::token(variable("BAO_IS"))).unwrap();
    match std::env::var("BAO_PEM") {
        Ok(pem) => client.with_roots(Roots::from_pem(pem.as_bytes()).unwrap()),
        Err(_) => client,
    }
}

fn content() -> DocumentContent {
    let mut bytes = Vec::with_capacity(2400);
    for _ in 0..100 {
        bytes.extend_from_slice(KEY.as_bytes());
    }
    DocumentContent::from(bytes)
}

fn read(client: &OpenBao, expected: fn(&Loaded) -> bool) {
    let source = OpenBaoField::new(client.clone(), "secret/kanal", "key");
    assert!(expected(&source::load(&source, Kanal::PROFILE).unwrap()));
}

/// Over plain HTTP, so that all there is in memory is what this crate and ureq make.
#[test]
fn a_key_that_is_read_over_a_plain_connection_leaves_nothing() {
    const TEST: &str = "a_key_that_is_read_over_a_plain_connection_leaves_nothing";
    let answer = format!(
        r#"{{"data":{{"path":"secret/","type":"kv","options":{{"version":"2"}},
            "data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#
    );
    let server = Answering::with(measured("200 OK", answer.as_bytes()));
    let address = server.origin().to_string();
    alone(TEST, &[("BAO", &address), ("BAO_IS", KEY)], || {
        let found = residue_of(|| {
            let client = client();
            read(&client, |loaded| matches!(loaded, Loaded::Found(_)));
            drop(client);
        });
        println!("{found}: {}", TEST.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
    });
}

/// What this leaves is rustls's own; with an allocator that wipes it is nothing.
#[test]
fn a_real_server_over_tls_leaves_what_is_said() {
    const TEST: &str = "a_real_server_over_tls_leaves_what_is_said";
    let server = std::env::var_os("BAO").is_none().then(Server::start);
    let (mut address, mut pem) = (String::new(), String::new());
    if let Some(server) = &server {
        server.put("secret/kanal", &json!({ "key": KEY }));
        (address, pem) = (server.address().to_string(), server.pem.clone());
    }
    alone(TEST, &[("BAO", &address), ("BAO_PEM", &pem), ("BAO_IS", ROOT)], || {
        let work = || {
            let client = client();
            read(&client, |loaded| matches!(loaded, Loaded::Found(_)));
            let store = OpenBaoStore::new(client, "secret/keys");
            let there = store.version().unwrap();
            let version = store.write(&content(), there.as_ref()).unwrap();
            assert_eq!(store.write(&content(), None), Err(DocumentError::Conflict));
            assert_eq!(store.read().unwrap().unwrap().version(), &version);
        };
        let found: Residue = residue_of(work);
        println!("{found}: {}", TEST.replace('_', " "));
        let wiped: Residue = residue_when_wiping(work);
        println!("{wiped}: the same, wiping");
        assert_eq!(wiped, NONE, "freed blocks with the key in them");
    });
}
