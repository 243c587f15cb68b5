//! A server that is gone for a while and comes back with what it had on its disk.

use keysheath::Cadence;
use keysheath::handle::KeyHandle;
use keysheath::key::ApiKey;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::rotation::{Rotation, RotationPolicy};

use super::*;
use crate::support::openbao::Cluster;
use crate::support::passing::{Passed, Passing};
use crate::support::steps::Now as _;

const RULES: &str = r#"path "secret/*" { capabilities = ["read", "create", "update"] }"#;

/// A role of AppRole, as a login that is good once.
fn role(server: &Cluster) -> Login {
    let admin = |method: &str, path: &str, body: &Value| {
        let (status, answer) = server.ask(method, path, body).unwrap();
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    };
    admin("POST", "sys/policies/acl/shop", &json!({ "policy": RULES }));
    admin("POST", "sys/auth/approle", &json!({ "type": "approle" }));
    let role = json!({ "policies": ["shop"], "token_ttl": "1h", "secret_id_num_uses": 1 });
    admin("POST", "auth/approle/role/shop", &role);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let role_id = text(&admin("GET", "auth/approle/role/shop/role-id", &Value::Null)["data"]["role_id"]);
    let secret_id = admin("POST", "auth/approle/role/shop/secret-id", &json!({}));
    Login::app_role(role_id).with_secret_id(text(&secret_id["data"]["secret_id"]))
}

fn has(handle: &KeyHandle<Kanal>, key: &str) -> bool {
    handle.load().is_ok_and(|snapshot| snapshot.current().matches(key.as_bytes()))
}

#[test]
fn clients_resume_after_a_server_restarts_with_its_data() {
    let mut server = Cluster::alone();
    server.ask("POST", "secret/data/kanal", &json!({ "data": { "key": KEY } })).unwrap();
    let relay = Passing::to(server.origin(0).to_string(), &server.pem, None);
    let is_mount = |passed: &Passed| passed.path.starts_with("sys/internal/ui/mounts/");
    let roots = Roots::from_pem(server.pem.as_bytes()).unwrap();
    let login = role(&server);
    let client = OpenBao::at(server.origin(0), login).unwrap().with_roots(roots).with_deadline(PATIENCE);
    let source = field(client.clone(), "secret/kanal");
    // It shares the token.
    let impatient = field(client.clone().with_deadline(SHORT), "secret/kanal");
    let relayed = OpenBao::at(relay.origin.clone(), Login::token(server.token.clone())).unwrap();
    let relayed = field(relayed.with_deadline(SHORT), "secret/kanal");
    assert_gives_the_key(&source);
    assert_gives_the_key(&relayed);

    let store = OpenBaoStore::new(client, "secret/keys");
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
    let key = |text: &str| ApiKey::<Kanal>::parse_bytes(text.as_bytes()).unwrap();
    rotation.adopt(&key(KEY)).unwrap();
    let settings = RefreshSettings::new().with_cadence(Cadence::every(Duration::from_millis(50)));
    let refresher = Refresher::<Kanal>::from_store(store.clone(), settings).unwrap();
    let mut in_force = KEY.to_owned();
    for (number, end) in [Cluster::kill, Cluster::stop].into_iter().enumerate() {
        let version = store.version().unwrap();
        end(&mut server, 0);
        for source in [&impatient, &relayed] {
            assert!(matches!(refusal(source), OpenBaoError::NoAnswer(_)));
        }
        assert!(has(&refresher.handle(), &in_force), "it keeps what it has");
        // A caller that asks meanwhile waits for it.
        let waiting = std::thread::spawn({
            let source = source.clone();
            move || assert_gives_the_key(&source)
        });
        server.start_node(0);
        server.wait_for(1);
        waiting.join().unwrap();
        // The token is still good: the login was.
        assert_eq!(store.version().unwrap(), version);
        let mounts = relay.count(is_mount);
        assert_gives_the_key(&relayed);
        assert_eq!(relay.count(is_mount), mounts, "where the mount ends is known");
        let next = format!("{}{number}", &OTHER_KEY[..23]);
        rotation.stage(&key(&next)).unwrap();
        rotation.promote_unverified_now().unwrap();
        rotation.retire_unprobed_now().unwrap();
        eventually("the promotion", || has(&refresher.handle(), &next));
        assert_ne!(store.version().unwrap(), version);
        in_force = next;
    }
}
