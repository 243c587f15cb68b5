//! P2, for the logins at OpenBao: what a client logs in with, the token that it is given, its renewal and the
//! second login leave no freed heap block with them, over plain HTTP.
//!
//! The server runs in the parent process, because its own buffers would be found otherwise.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use keysheath::key::{Issuer as _, Kanal, Origin};
use keysheath::openbao::{Login, OpenBao};
use keysheath::source::{self, Loaded, OpenBaoField};

use crate::support::Folder;
use crate::support::recorder::{Connection, Recorder, Request, write_answer};
use crate::support::residue::{KEY, NONE, alone, residue_of};

/// What is read: not what is looked for.
const OTHER: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

/// A server whose tokens are the planted key, and live for a second. The third reading of the key is refused,
/// as is the token then.
fn server() -> Recorder {
    let reads = AtomicU32::new(0);
    let answer = move |request: &Request, stream: &mut dyn Connection| {
        let line = request.line();
        let (status, body) = if line.ends_with("/login") || line.ends_with("/renew-self") {
            let auth = format!(r#"{{"client_token":"{KEY}","lease_duration":1,"renewable":true}}"#);
            ("200 OK", format!(r#"{{"auth":{auth},"data":null}}"#))
        } else if line.ends_with("/lookup-self") && reads.load(Ordering::SeqCst) == 3 {
            ("403 Forbidden", format!(r#"{{"errors":["{KEY} is no token"]}}"#))
        } else if line.contains("/data/") && reads.fetch_add(1, Ordering::SeqCst) == 2 {
            ("403 Forbidden", format!(r#"{{"errors":["permission denied to {KEY}"]}}"#))
        } else {
            let data = format!(
                r#""path":"secret/","type":"kv","options":{{"version":"2"}},
                    "ttl":1,"renewable":true,"id":"{KEY}",
                    "data":{{"key":"{OTHER}"}},"metadata":{{"version":1,"created_time":"t"}}"#
            );
            ("200 OK", format!(r#"{{"data":{{{data}}}}}"#))
        };
        write_answer(stream, status, &body)
    };
    Recorder::raw(answer)
}

fn client(login: Login) -> OpenBao {
    OpenBao::at(Origin::parse(&std::env::var("BAO").unwrap()).unwrap(), login).unwrap()
}

/// Logs in, reads, lets the token be renewed, and has it refused, which causes another login where there is
/// one.
fn live(login: Login, is_good_at_the_end: bool) {
    drop(format!("{login:?}"));
    let client = client(login);
    let source = OpenBaoField::new(client.clone(), "secret/kanal", "key");
    let read = || source::load(&source, Kanal::PROFILE);
    assert!(matches!(read().unwrap(), Loaded::Found(_)));
    std::thread::sleep(Duration::from_millis(800));
    assert!(matches!(read().unwrap(), Loaded::Found(_)));
    let third = read();
    assert_eq!(third.is_ok(), is_good_at_the_end, "{third:?}");
    drop(format!("{client:?} {third:?}"));
}

/// Measures one login in a process of its own; `lines` are requests that must have come.
fn measured(
    test: &'static str,
    lines: &[&str],
    file: Option<&str>,
    is_good_at_the_end: bool,
    login: fn() -> Login,
) {
    let (server, folder) = (server(), Folder::new());
    let path = folder.write("secret", file.unwrap_or_default());
    let is_parent = std::env::var_os("BAO").is_none();
    let variables = [("BAO", &*format!("http://{}", server.address)), ("BAO_FILE", path.to_str().unwrap())];
    alone(test, &variables, || {
        let found = residue_of(|| live(login(), is_good_at_the_end));
        println!("{found}: {}", test.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with what a client logs in with");
    });
    let heads = server.heads().join("\n");
    for line in lines.iter().filter(|_| is_parent) {
        assert!(heads.contains(line), "{line} did not come:\n{heads}");
    }
}

fn file() -> String {
    std::env::var("BAO_FILE").unwrap()
}

/// The planted key, in a block that is as large as it.
fn key() -> String {
    KEY.to_owned()
}

#[test]
fn a_token_that_is_given_and_renewed_leaves_nothing() {
    const TEST: &str = "a_token_that_is_given_and_renewed_leaves_nothing";
    measured(TEST, &["renew-self"], None, false, || Login::token(key()));
}

#[test]
fn a_token_of_a_file_leaves_nothing() {
    const TEST: &str = "a_token_of_a_file_leaves_nothing";
    // The file has the same token still when it is refused.
    measured(TEST, &["lookup-self"], Some(&format!("{KEY}\n")), false, || Login::token_file(file()));
}

#[test]
fn a_role_a_secret_id_and_the_token_for_them_leave_nothing() {
    const TEST: &str = "a_role_a_secret_id_and_the_token_for_them_leave_nothing";
    let lines = ["auth/approle/login", "renew-self", "lookup-self"];
    measured(TEST, &lines, None, true, || Login::app_role(key()).with_secret_id(key()));
}

#[test]
fn a_secret_id_of_a_file_leaves_nothing() {
    const TEST: &str = "a_secret_id_of_a_file_leaves_nothing";
    measured(TEST, &["renew-self"], Some(KEY), true, || Login::app_role(key()).with_secret_id_file(file()));
}

#[test]
fn the_jwt_of_a_service_account_leaves_nothing() {
    const TEST: &str = "the_jwt_of_a_service_account_leaves_nothing";
    let lines = ["auth/kubernetes/login", "renew-self"];
    measured(TEST, &lines, Some(KEY), true, || Login::kubernetes("shop-sync").with_jwt(file()));
}

#[test]
fn unusual_and_invalid_responses_leave_nothing() {
    const TEST: &str = "unusual_and_invalid_responses_leave_nothing";
    // The first character as an escape, which makes a parser copy the rest; then the key where no text should
    // be.
    let escaped = format!("\\u0051{}", &KEY[1..]);
    let auth = |token: &str, length: &str| {
        format!(r#"{{"auth":{{"client_token":{token},"lease_duration":{length},"renewable":true}}}}"#)
    };
    let cases = [
        ("200 OK", auth(&format!("\"{escaped}\""), "1")),
        ("200 OK", auth(&format!("\"{KEY}\""), &format!("\"{KEY}\""))),
        ("200 OK", auth(&format!("{{\"{KEY}\":1}}"), "1")),
        ("200 OK", auth(&format!("\"{KEY}\\n\""), "1")),
        ("200 OK", auth(&format!("\"{KEY}"), "1")),
        ("200 OK", format!("{{\"auth\":\"{KEY}\"}}")),
        ("400 Bad Request", format!("{{\"errors\":[\"invalid role \\\"{KEY}\\\"\",\"{escaped}\"]}}")),
        ("404 Not Found", format!("{{\"errors\":[\"no handler for \\\"{KEY}\\\"\"]}}")),
        ("503 Down", format!("{{\"errors\":[\"{escaped} \\\" {KEY}\"]}}")),
        ("200 OK", format!("<html>{KEY}")),
    ];
    let count = cases.len();
    let server = Recorder::raw(move |request, stream| {
        let case = request
            .line()
            .split('/')
            .nth(3)
            .and_then(|mount| mount.strip_prefix("case")?.parse::<usize>().ok());
        let (status, body) =
            case.map_or(("404 Not Found", "{\"errors\":[]}"), |at| (cases[at].0, &cases[at].1));
        write_answer(stream, status, body)
    });
    alone(TEST, &[("BAO", &format!("http://{}", server.address))], || {
        let found: Vec<_> = (0..count)
            .map(|case| {
                residue_of(|| {
                    let login = Login::app_role(key()).with_secret_id(key()).at_mount(format!("case{case}"));
                    let client = client(login).with_deadline(Duration::from_millis(90));
                    let source = OpenBaoField::new(client, "secret/kanal", "key");
                    drop(format!("{:?}", source::load(&source, Kanal::PROFILE).unwrap_err()));
                })
            })
            .collect();
        println!("{found:?}");
        assert_eq!(found, vec![NONE; count], "freed blocks with what a server said");
    });
}
