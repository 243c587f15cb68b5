//! The variables, and key references that need them.

use super::*;
use crate::support::Child;
use keysheath::source::KeyRef;

const REFERENCE: &str = "openbao:secret/shop/kanal#key";

#[track_caller]
fn source() -> Box<dyn Source> {
    REFERENCE.parse::<KeyRef>().unwrap().source().unwrap()
}

fn child(name: &'static str) -> Child {
    const ALL: [&str; 9] = [
        "KEYSHEATH_OPENBAO_PLAIN_HTTP",
        "BAO_ADDR",
        "BAO_TOKEN",
        "BAO_CACERT",
        "BAO_NAMESPACE",
        "VAULT_ADDR",
        "VAULT_TOKEN",
        "VAULT_CACERT",
        "VAULT_NAMESPACE",
    ];
    ALL.iter().fold(Child::new(name), |child, variable| child.without(variable)).var("HOME", "/nowhere")
}

#[test]
fn a_reference_is_resolved_with_the_variables_of_either_prefix() {
    const NAME: &str = "environment::a_reference_is_resolved_with_the_variables_of_either_prefix";
    if child(NAME).is_here() {
        child(NAME).run(|| assert_gives_the_key(&*source()));
        return;
    }
    let server = Server::start();
    server.put("secret/shop/kanal", &json!({ "key": KEY }));
    let folder = crate::support::Folder::new();
    let certificates = folder.write("ca.pem", &server.pem);
    let address = server.address().to_string();
    folder.write(".vault-token", ROOT);
    for prefix in ["BAO", "VAULT"] {
        let name = |end: &str| format!("{prefix}_{end}");
        let with = || child(NAME).var(&name("ADDR"), &address).var(&name("CACERT"), &certificates);
        with().var(&name("TOKEN"), ROOT).run(|| ());
        // Without a token, that which a login left in the home.
        with().var(&name("TOKEN"), "").var("HOME", folder.path()).run(|| ());
    }
    // Both, and the same.
    child(NAME)
        .var("BAO_ADDR", &address)
        .var("VAULT_ADDR", &address)
        .var("BAO_TOKEN", ROOT)
        .var("BAO_CACERT", &certificates)
        .run(|| ());
}

#[test]
fn what_is_missing_or_differs_is_said_and_nothing_is_sent() {
    const NAME: &str = "environment::what_is_missing_or_differs_is_said_and_nothing_is_sent";
    if child(NAME).is_here() {
        child(NAME).run(|| println!("refusal: {:?}", refusal(&*source())));
        return;
    }
    let query = "https://127.0.0.1:1/path?x=1";
    let plain = "KEYSHEATH_OPENBAO_PLAIN_HTTP";
    let cases: [(&[(&str, &str)], &str); 14] = [
        (&[], "NoAddress"),
        (&[("BAO_ADDR", "")], "NoAddress"),
        (&[("BAO_ADDR", "https://127.0.0.1:1")], "NoToken"),
        (&[("BAO_TOKEN", "s.a")], "NoAddress"),
        (&[("BAO_ADDR", query), ("BAO_TOKEN", "s.a")], "BadVariable { variable: \"BAO_ADDR\""),
        (
            &[("BAO_ADDR", "https://127.0.0.1:1/a/../b"), ("BAO_TOKEN", "s.a")],
            "BadVariable { variable: \"BAO_ADDR\"",
        ),
        (&[("BAO_ADDR", "http://localhost:1"), ("BAO_TOKEN", "s.a"), (plain, "bao.example")], "NotHttps"),
        (&[("BAO_ADDR", "http://localhost:1"), ("BAO_TOKEN", "s.a"), (plain, "1")], "NotHttps"),
        (
            &[("BAO_ADDR", "http://localhost:1"), ("BAO_TOKEN", "s.a"), (plain, "localhost")],
            "NoAnswer(NotListening)",
        ),
        (&[("VAULT_ADDR", "http://bao.example"), ("VAULT_TOKEN", "s.a")], "NotHttps"),
        (
            &[("BAO_ADDR", "https://127.0.0.1:1"), ("VAULT_TOKEN", "s.a")],
            "TwoPrefixes { variable: \"VAULT_TOKEN\" }",
        ),
        (
            &[
                ("BAO_ADDR", "https://127.0.0.1:1"),
                ("BAO_TOKEN", "s.a"),
                ("VAULT_ADDR", "https://127.0.0.1:2"),
            ],
            "TwoPrefixes { variable: \"VAULT_ADDR\" }",
        ),
        (
            &[("BAO_ADDR", "https://127.0.0.1:1"), ("BAO_TOKEN", "s.a"), ("BAO_CACERT", "/none.pem")],
            "NoFile { path: \"/none.pem\" }",
        ),
        (&[("BAO_ADDR", "https://127.0.0.1:1"), ("BAO_TOKEN", "s.a"), ("BAO_NAMESPACE", "a//b")], "BadName"),
    ];
    for (variables, expected) in cases {
        let child = variables.iter().fold(child(NAME), |child, (name, value)| child.var(name, value));
        let output = child.run(|| ()).unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains(&format!("refusal: {expected}")), "{variables:?}: {shown}");
    }
}

#[test]
fn a_file_of_the_environment_is_refused_without_advice_on_trust() {
    const NAME: &str = "environment::a_file_of_the_environment_is_refused_without_advice_on_trust";
    if child(NAME).is_here() {
        child(NAME).run(|| {
            let refusal = refusal(&*source());
            assert!(matches!(refusal, OpenBaoError::FileRefused { .. }), "{refusal:?}");
            assert!(refusal.to_string().ends_with(": chmod g-w it"), "{refusal}");
        });
        return;
    }
    let folder = crate::support::Folder::new();
    let certificates = folder.write("ca.pem", "none");
    let token = folder.write(".vault-token", "s.a");
    for path in [&certificates, &token] {
        crate::support::set_mode(path, 0o660);
    }
    let with = || child(NAME).var("BAO_ADDR", "https://127.0.0.1:1");
    with().var("BAO_TOKEN", "s.a").var("BAO_CACERT", &certificates).run(|| ());
    with().var("HOME", folder.path()).run(|| ());
}

#[test]
fn an_address_may_have_a_path_and_be_plain_where_it_is_named() {
    const NAME: &str = "environment::an_address_may_have_a_path_and_be_plain_where_it_is_named";
    if child(NAME).is_here() {
        child(NAME).run(|| assert_gives_the_key(&*source()));
        return;
    }
    let (stand_in, _) = wrong_server::below("/proxy/bao");
    let address = format!("http://localhost:{}/proxy/bao/", stand_in.address.port());
    child(NAME)
        .var("BAO_ADDR", address)
        .var("BAO_TOKEN", "s.secrettoken")
        .var("KEYSHEATH_OPENBAO_PLAIN_HTTP", "LOCALHOST")
        .run(|| ());
    assert!(stand_in.heads().iter().all(|head| head.contains(" /proxy/bao/v1/")), "{:?}", stand_in.heads());
}
