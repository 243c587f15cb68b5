//! Tokens and how they are had, renewed and replaced.

use super::*;
use crate::support::answering::{Answering, measured};

const RULES: &str = r#"path "secret/data/*" { capabilities = ["read", "create", "update"] }
    path "secret/metadata/*" { capabilities = ["read"] }"#;

/// A server with a key, and a role of AppRole that may read it: its role ID and its secret ID.
fn with_role(ttl: &str, more: &Value) -> (Server, String, String) {
    let server = Server::start();
    server.put("secret/kanal", &json!({ "key": KEY }));
    server.admin("POST", "sys/policies/acl/shop", &json!({ "policy": RULES }));
    server.admin("POST", "sys/auth/approle", &json!({ "type": "approle" }));
    let mut role = json!({ "policies": ["shop"], "token_ttl": ttl });
    role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.admin("POST", "auth/approle/role/shop", &role);
    let role_id = server.admin("GET", "auth/approle/role/shop/role-id", &Value::Null);
    let secret_id = server.admin("POST", "auth/approle/role/shop/secret-id", &json!({}));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (server, text(&role_id["data"]["role_id"]), text(&secret_id["data"]["secret_id"]))
}

#[test]
fn invalid_tokens_are_refused_and_differ_from_a_denied_policy() {
    let server = Server::start();
    server.put("secret/kanal", &json!({ "key": KEY }));
    let source = |token: &str| field(server.client(Login::token(token.to_owned())), "secret/kanal");
    assert_eq!(refusal(&source("s.nosuchtokennosuchtokennosu")), OpenBaoError::TokenRefused);

    let short = source(&server.token(RULES, "2s"));
    assert_gives_the_key(&short);
    let revoked = server.token(RULES, "1h");
    let source_of_revoked = source(&revoked);
    assert_gives_the_key(&source_of_revoked);
    server.admin("POST", "auth/token/revoke", &json!({ "token": revoked }));
    assert_eq!(refusal(&source_of_revoked), OpenBaoError::TokenRefused);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(refusal(&short), OpenBaoError::TokenRefused);

    let other = source(&server.token(r#"path "secret/data/other" { capabilities = ["read"] }"#, "1h"));
    assert!(matches!(refusal(&other), OpenBaoError::Forbidden { access } if access.contains("read")));
    let nothing = source(&server.token(r#"path "sys/none" { capabilities = ["read"] }"#, "1h"));
    assert_eq!(refusal(&nothing), OpenBaoError::NoMount);
}

#[test]
fn what_no_header_carries_is_no_token() {
    let server = Server::start();
    for token in ["", "s.a b", "s.abc\n", "s.ä", &"s".repeat(9000)] {
        let source = field(server.client(Login::token(token.to_owned())), "secret/kanal");
        assert_eq!(refusal(&source), OpenBaoError::BadCredential);
    }
}

#[test]
fn a_token_is_renewed_ahead_of_its_end() {
    let server = Server::start();
    server.put("secret/kanal", &json!({ "key": KEY }));
    let source = field(server.client(Login::token(server.token(RULES, "6s"))), "secret/kanal");
    // Three times as long as it would live.
    for _ in 0..18 {
        assert_gives_the_key(&source);
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_gives_the_key(&source);
}

#[test]
fn app_role_logs_in_again_only_after_its_token_ends() {
    let (server, role, secret) = with_role("3s", &json!({ "token_max_ttl": "5s" }));
    let source =
        field(server.client(Login::app_role(role.clone()).with_secret_id(secret.clone())), "secret/kanal");
    for _ in 0..9 {
        assert_gives_the_key(&source);
        std::thread::sleep(Duration::from_secs(1));
    }
    std::thread::sleep(Duration::from_secs(4));
    assert_gives_the_key(&source);
    server.admin("POST", "sys/leases/revoke-prefix/auth/approle/login", &json!({}));
    assert_gives_the_key(&source);

    let wrong =
        field(server.client(Login::app_role(role).with_secret_id("wrong".to_owned())), "secret/kanal");
    assert_eq!(refusal(&wrong), OpenBaoError::LoginRefused { method: "AppRole" });
    let nowhere = Login::app_role("a".to_owned()).with_secret_id(secret).at_mount("none");
    let nowhere = field(server.client(nowhere), "secret/kanal");
    assert!(matches!(refusal(&nowhere), OpenBaoError::NoMount | OpenBaoError::LoginRefused { .. }));
}

#[test]
fn callers_at_once_share_one_login() {
    // The secret ID is good for one login, and no more.
    let (server, role, _) = with_role("1h", &json!({ "secret_id_num_uses": 1 }));
    let secret = server.admin("POST", "auth/approle/role/shop/secret-id", &json!({}));
    let folder = crate::support::Folder::new();
    let path = folder.write("secret-id", format!("{}\n", secret["data"]["secret_id"].as_str().unwrap()));
    let login = Login::app_role(role).with_secret_id_file(&path);
    let client = server.client(login.clone());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            let source = field(client.clone(), "secret/kanal");
            scope.spawn(move || assert_gives_the_key(&source));
        }
    });
    // Another client would need another secret ID.
    let again = field(server.client(login), "secret/kanal");
    assert_eq!(refusal(&again), OpenBaoError::LoginRefused { method: "AppRole" });
}

#[test]
fn a_token_is_renewed_after_its_secret_id_is_gone() {
    let (server, role, secret) = with_role("6s", &json!({ "secret_id_num_uses": 1 }));
    let folder = crate::support::Folder::new();
    let path = folder.write("secret-id", &secret);
    let source = field(server.client(Login::app_role(role).with_secret_id_file(&path)), "secret/kanal");
    assert_gives_the_key(&source);
    std::fs::remove_file(&path).unwrap();
    // Longer than it would live.
    for _ in 0..9 {
        std::thread::sleep(Duration::from_secs(1));
        assert_gives_the_key(&source);
    }
}

#[test]
fn a_token_file_is_read_again_when_its_token_is_refused() {
    let server = Server::start();
    server.put("secret/kanal", &json!({ "key": KEY }));
    let (first, second) = (server.token(RULES, "1h"), server.token(RULES, "2h"));
    let folder = crate::support::Folder::new();
    let path = folder.write("token", format!("{first}\n"));
    let source = field(server.client(Login::token_file(&path)), "secret/kanal");
    assert_gives_the_key(&source);
    server.admin("POST", "auth/token/revoke", &json!({ "token": first }));
    assert_eq!(refusal(&source), OpenBaoError::TokenRefused);
    folder.write("token", &second);
    assert_gives_the_key(&source);
    crate::support::set_mode(&path, 0o666);
    server.admin("POST", "auth/token/revoke", &json!({ "token": second }));
    assert!(
        matches!(refusal(&source), OpenBaoError::LoginFileRefused { .. }),
        "others could have written it"
    );
    std::fs::remove_file(&path).unwrap();
    let source = field(server.client(Login::token_file(&path)), "secret/kanal");
    assert_eq!(refusal(&source), OpenBaoError::NoFile { path });
    for not_a_file in [folder.path(), std::path::Path::new("/dev/zero")] {
        let source = field(server.client(Login::token_file(not_a_file)), "secret/kanal");
        assert!(matches!(refusal(&source), OpenBaoError::LoginFileRefused { .. }));
    }
}

/// A stand-in for OpenBao that lets a Kubernetes login in: there is no cluster here whose service accounts it
/// could ask.
#[test]
fn kubernetes_sends_the_jwt_of_the_pod_and_its_role() {
    let stand_in = Answering::at("127.0.0.1", |head| {
        let body = if head.starts_with("POST /v1/auth/k8s-east/login ") {
            r#"{"auth":{"client_token":"s.fromkubernetes","lease_duration":3600,"renewable":true}}"#
                .to_owned()
        } else if !head.contains("x-vault-token: s.fromkubernetes\r\n") {
            return measured("403 Forbidden", br#"{"errors":["permission denied"]}"#);
        } else if head.contains("/sys/internal/ui/mounts/") {
            r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#.to_owned()
        } else {
            format!(
                r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#
            )
        };
        measured("200 OK", body.as_bytes())
    });
    let folder = crate::support::Folder::new();
    let jwt = folder.write("jwt", "aaa.bbb.ccc\n");
    let login = Login::kubernetes("shop").at_mount("k8s-east").with_jwt(&jwt);
    let client = OpenBao::at(stand_in.origin(), login).unwrap().with_deadline(SHORT);
    let source = field(client, "secret/kanal");
    assert_gives_the_key(&source);
    assert_gives_the_key(&source);
    let heads = stand_in.heads();
    let logins: Vec<_> = heads.iter().filter(|head| head.contains("/login ")).collect();
    assert_eq!(logins.len(), 1);
    assert!(!logins[0].contains("x-vault-token"));
    assert!(
        logins[0]
            .contains(&format!("content-length: {}\r\n", r#"{"role":"shop","jwt":"aaa.bbb.ccc"}"#.len()))
    );
    for head in &heads {
        assert!(head.contains("x-vault-inconsistent: forward-active-node\r\n"), "{head}");
    }

    let refusing = Answering::with(measured("403 Forbidden", br#"{"errors":["permission denied"]}"#));
    let login = Login::kubernetes("shop").with_jwt(&jwt);
    let source = field(OpenBao::at(refusing.origin(), login).unwrap(), "secret/kanal");
    assert_eq!(refusal(&source), OpenBaoError::LoginRefused { method: "Kubernetes" });
    let login = Login::kubernetes("shop").with_jwt(folder.at("none"));
    let source = field(OpenBao::at(refusing.origin(), login).unwrap(), "secret/kanal");
    assert!(matches!(refusal(&source), OpenBaoError::NoFile { .. }));
}

#[test]
fn a_token_file_of_an_owner_who_is_trusted_is_read() {
    let (stand_in, _) = crate::wrong_server::below("");
    let read = |login: Login| {
        let source = field(OpenBao::at(stand_in.origin(), login).unwrap(), "secret/kanal");
        source::load(&source, Kanal::PROFILE).map(|_| ()).map_err(|_| refusal(&source))
    };
    crate::support::with_a_file_of_another_user(
        "login::a_token_file_of_an_owner_who_is_trusted_is_read",
        |path| {
            let uid = std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap());
            let strict = read(Login::token_file(path)).unwrap_err();
            assert!(matches!(strict, OpenBaoError::LoginFileRefused { .. }), "{strict}");
            assert!(strict.to_string().contains(&format!("with_trusted_owner({uid})")), "{strict}");
            assert!(read(Login::token_file(path).with_trusted_owner(uid + 1)).is_err());
            // It may hold no token; what matters is that it is read.
            let trusted = read(Login::token_file(path).with_trusted_owner(uid));
            assert!(!matches!(trusted, Err(OpenBaoError::LoginFileRefused { .. })), "{trusted:?}");
        },
    );
    let folder = crate::support::Folder::new();
    let path = folder.write("token", "s.secrettoken");
    crate::support::set_mode(&path, 0o660);
    let gid = std::os::unix::fs::MetadataExt::gid(&path.metadata().unwrap());
    let strict = read(Login::token_file(&path)).unwrap_err();
    assert!(strict.to_string().contains(&format!("with_trusted_group({gid})")), "{strict}");
    assert_eq!(read(Login::token_file(&path).with_trusted_group(gid)), Ok(()));
    crate::support::set_mode(&path, 0o662);
    assert!(read(Login::token_file(&path).with_trusted_group(gid)).is_err(), "every user can write it");
}
