//! A client, a source and a store of OpenBao in every state.

use keysheath::failure::Obstacle;
use keysheath::key::Origin;
use keysheath::openbao::{Login, OpenBao, OpenBaoError};
use keysheath::source::OpenBaoField;
use keysheath::store::{DocumentContent, DocumentStore as _, OpenBaoStore};

use super::*;
use crate::support::Folder;
use crate::support::answering::{Answering, measured};

fn at(answering: &Answering, login: Login) -> OpenBao {
    let client = OpenBao::at(answering.origin(), login).unwrap().with_deadline(Duration::from_millis(300));
    assert_debug_silent("a client", &client);
    client
}

fn logins(folder: &Folder) -> [Login; 5] {
    let file = folder.write("credential", KANAL);
    [
        Login::token(KANAL.to_owned()),
        Login::token_file(&file),
        Login::app_role(KANAL.to_owned()).with_secret_id(KANAL.to_owned()),
        Login::app_role(KANAL.to_owned()).with_secret_id_file(&file),
        Login::kubernetes(KANAL).with_jwt(&file),
    ]
}

#[test]
fn a_login_and_whatever_a_server_answers_shows_no_key() {
    let folder = Folder::new();
    for login in logins(&folder) {
        assert_debug_silent("a login", &login);
        for status in
            ["200 OK", "204 No Content", "307 Away", "400 Bad", "403 Forbidden", "404 None", "500 Error"]
        {
            for body in [
                format!(
                    r#"{{"errors":["{KANAL}"],"data":{{"{KANAL}":"{KANAL}"}},
                        "auth":{{"client_token":"{KANAL}","lease_duration":60}}}}"#
                ),
                format!("<html>{KANAL}"),
                KANAL.to_owned(),
            ] {
                let server = Answering::with(measured(status, body.as_bytes()));
                let client = at(&server, login.clone());
                let source = OpenBaoField::new(client.clone(), "secret/a", "key");
                assert_debug_silent("a source", &source);
                if let Err(error) = source::load(&source, Kanal::PROFILE) {
                    assert_error_silent("a source's error", &error);
                }
                let store = OpenBaoStore::new(client, "secret/a");
                assert_debug_silent("a store", &store);
                let content = DocumentContent::from(KANAL.as_bytes().to_vec());
                let outcomes = [
                    store.read().map(drop),
                    store.version().map(drop),
                    store.write(&content, None).map(drop),
                ];
                for error in outcomes.into_iter().filter_map(Result::err) {
                    assert_error_silent("a store's error", &error);
                }
            }
        }
    }
}

#[test]
fn a_secret_and_its_errors_show_no_key() {
    for value in [
        format!("\"{KANAL}\\n\""),
        format!("[\"{KANAL}\"]"),
        format!("\"Bearer {KANAL}\""),
        format!("\"{KANAL}\""),
    ] {
        let data = format!(
            r#"{{"data":{{"path":"secret/","type":"kv","options":{{"version":"2"}},
                "data":{{"key":{value}}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#
        );
        let server = Answering::with(measured("200 OK", data.as_bytes()));
        let source = OpenBaoField::new(at(&server, Login::token("s.a".to_owned())), "secret/a", "key");
        match source::load(&source, Kanal::PROFILE) {
            Ok(loaded) => assert_debug_silent("a key of OpenBao", &loaded),
            Err(error) => assert_error_silent("what is no key", &error),
        }
    }
    let error: OpenBaoError = OpenBaoError::NoAnswer(Obstacle::Broken);
    assert_error_silent("an error", &error);
    let address = Origin::parse("http://bao.example").unwrap();
    assert_error_silent("an address", &OpenBao::at(address, Login::token(KANAL.to_owned())).unwrap_err());
}
