//! P1 for OpenBao: what ureq, rustls and everything else logs shows no part of a key, a token or a secret ID.

use keysheath::key::{Issuer as _, Kanal};
use keysheath::openbao::Login;
use keysheath::source::{self, Loaded, OpenBaoField};
use keysheath::store::{DocumentContent, DocumentStore as _, OpenBaoStore};
use serde_json::{Value, json};

use crate::support::canary::{KANAL, traces_of};
use crate::support::in_child;
use crate::support::logged::Lines;
use crate::support::openbao::Server;

static LINES: Lines = Lines::new();

/// The bytes that ureq's log shows in hexadecimal, sixteen to a line, in one text.
fn bytes_shown(lines: &[String]) -> String {
    let rows = lines.iter().filter(|line| line.contains("ureq_proto"));
    rows.filter_map(|line| line.split(' ').next_back()).collect()
}

/// In a process of its own, because a process has one logger.
#[test]
fn nothing_that_is_sent_or_received_is_logged() {
    in_child::<&str>("nothing_that_is_sent_or_received_is_logged", &[], look_at_the_log);
}

fn look_at_the_log() {
    let server = Server::start();
    server.put("secret/kanal", &json!({ "key": KANAL }));
    server.admin("POST", "sys/auth/approle", &json!({ "type": "approle" }));
    let policy = r#"path "secret/*" { capabilities = ["read", "create", "update"] }"#;
    server.admin("POST", "sys/policies/acl/shop", &json!({ "policy": policy }));
    server.admin("POST", "auth/approle/role/shop", &json!({ "policies": ["shop"], "token_ttl": "1h" }));
    let role = server.admin("GET", "auth/approle/role/shop/role-id", &Value::Null);
    let role = role["data"]["role_id"].as_str().unwrap().to_owned();
    let secret = server.admin("POST", "auth/approle/role/shop/secret-id", &json!({}));
    let secret = secret["data"]["secret_id"].as_str().unwrap().to_owned();
    let token = server.token(policy, "1h");

    LINES.install();
    let logins = [Login::token(token.clone()), Login::app_role(role).with_secret_id(secret.clone())];
    for login in logins {
        let client = server.client(login);
        for _ in 0..2 {
            let source = OpenBaoField::new(client.clone(), "secret/kanal", "key");
            assert!(matches!(source::load(&source, Kanal::PROFILE), Ok(Loaded::Found(_))));
        }
        let store = OpenBaoStore::new(client, "secret/keys");
        let there = store.version().unwrap();
        let content = DocumentContent::from(KANAL.repeat(200).into_bytes());
        store.write(&content, there.as_ref()).unwrap();
        assert!(store.read().unwrap().is_some());
    }
    log::set_max_level(log::LevelFilter::Off);

    let lines = LINES.all();
    assert!(lines.iter().any(|line| line.starts_with("TRACE ureq_proto")), "nothing was looked at");
    let bytes = bytes_shown(&lines);
    assert!(bytes.contains("x-vault-inconsistent"), "the heads are logged, and this finds them");
    // In base64 the document is in a body too, and the search knows that form.
    for secret in [KANAL, &token[2..], &secret] {
        for shown in [&lines.join("\n"), &bytes] {
            assert_eq!(traces_of(secret, shown), [] as [&str; 0], "a secret is logged");
        }
    }
}
