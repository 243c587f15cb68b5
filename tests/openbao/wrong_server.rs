//! What stands where OpenBao is expected: proxies, pages, strangers, floods.

use super::*;
use crate::support::answering::{Answering, chunked, measured};
use keysheath::failure::Obstacle;

const MOUNT: &str = r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#;
const METADATA: &str = r#"{"data":{"current_version":1,"versions":{"1":{"created_time":"t"}}}}"#;

/// A client of a stand-in whose token is said to be good, and that answers `answer` to everything about the
/// secret.
fn with(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (Answering, OpenBao) {
    let stand_in = Answering::at("127.0.0.1", move |head| {
        if head.contains("/lookup-self ") {
            measured("200 OK", br#"{"data":{"ttl":0}}"#)
        } else if head.contains("/sys/internal/ui/mounts/") {
            measured("200 OK", MOUNT.as_bytes())
        } else {
            answer(head)
        }
    });
    let client = OpenBao::at(stand_in.origin(), Login::token("s.secrettoken".to_owned())).unwrap();
    (stand_in, client.with_deadline(SHORT))
}

fn always(answer: Vec<u8>) -> (Answering, OpenBao) {
    with(move |_| answer.clone())
}

#[test]
fn a_foreign_response_says_so_and_shows_nothing_of_the_key() {
    for (answer, expected) in [
        (measured("200 OK", b"<html>sign in</html>"), OpenBaoError::NotOpenBao { status: 200 }),
        (measured("404 Not Found", b"<html>none</html>"), OpenBaoError::NotOpenBao { status: 404 }),
        (measured("502 Bad Gateway", b"<html>bad</html>"), OpenBaoError::NotOpenBao { status: 502 }),
        (measured("404 Not Found", b"no such page"), OpenBaoError::NotOpenBao { status: 404 }),
        (measured("200 OK", b""), OpenBaoError::NotOpenBao { status: 200 }),
        (measured("200 OK", b"{\"data\":"), OpenBaoError::NotOpenBao { status: 200 }),
        (measured("204 No Content", b""), OpenBaoError::Rejected { status: 204 }),
        (measured("400 Bad Request", br#"{"errors":["no"]}"#), OpenBaoError::Rejected { status: 400 }),
        (measured("418 Teapot", b"{}"), OpenBaoError::Rejected { status: 418 }),
        (measured("500 Error", br#"{"errors":["internal"]}"#), OpenBaoError::Failed { status: 500 }),
        (measured("429 Too Many", br#"{"errors":["quota"]}"#), OpenBaoError::TooManyRequests),
        (measured("503 Unavailable", br#"{"errors":["no active node"]}"#), OpenBaoError::NoActiveNode),
        (b"SSH-2.0-OpenSSH_9\r\n".to_vec(), OpenBaoError::NoAnswer(Obstacle::NotHttp)),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let (_stand_in, client) = always(answer);
        assert_eq!(refusal(&field(client, "secret/kanal")), expected, "{shown}");
    }
}

#[test]
fn a_flood_is_not_read_to_its_end() {
    let large = format!(r#"{{"data":{{"data":{{"key":"{}"}}}}}}"#, "x".repeat(10_000_000));
    for answer in [measured("200 OK", large.as_bytes()), chunked("200 OK", large.as_bytes())] {
        let (_stand_in, client) = always(answer);
        let error = refusal(&field(client, "secret/kanal"));
        let limit = 512 * 1024;
        assert_eq!(error, OpenBaoError::NoAnswer(Obstacle::TooLarge { limit }));
    }
    let (_stand_in, client) = always(measured("200 OK", "[".repeat(200_000).as_bytes()));
    assert_eq!(refusal(&field(client, "secret/kanal")), OpenBaoError::NotOpenBao { status: 200 });
}

#[test]
fn a_chunked_answer_is_read_whole() {
    let answer =
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":7,"created_time":"t"}}}}}}"#);
    let (_stand_in, client) = always(chunked("200 OK", answer.as_bytes()));
    assert_gives_the_key(&field(client, "secret/kanal"));
}

#[test]
fn what_passes_is_asked_again_and_what_does_not_is_not() {
    for (status, repeats) in [
        ("429 Too Many", true),
        ("503 Unavailable", true),
        ("412 Precondition Failed", true),
        ("500 Error", true),
        ("400 Bad Request", false),
        ("418 Teapot", false),
    ] {
        let (stand_in, client) = always(measured(status, b"{}"));
        refusal(&field(client, "secret/kanal"));
        let count = stand_in.heads().iter().filter(|head| head.starts_with("GET /v1/secret/data/")).count();
        assert_eq!(count > 1, repeats, "{status}: {count}");
        // Pauses of 0.05 s at least, that double.
        assert!(count < 8, "{status}: {count}");
    }
}

#[test]
fn a_write_is_asked_again_only_where_it_was_not_done() {
    for (status, repeats) in
        [("429 Too Many", true), ("503 Unavailable", true), ("500 Error", false), ("502 Bad Gateway", false)]
    {
        let (stand_in, client) = with(move |head| {
            if head.starts_with("GET") {
                measured("200 OK", METADATA.as_bytes())
            } else {
                measured(status, b"{}")
            }
        });
        let store = OpenBaoStore::new(client, "secret/keys");
        let there = store.version().unwrap().unwrap();
        let (is_definite, _) = refused(store.write(&content("text"), Some(&there)));
        assert!(!is_definite, "{status}");
        let count = stand_in.heads().iter().filter(|head| head.starts_with("POST")).count();
        assert_eq!(count > 1, repeats, "{status}: {count}");
    }
}

#[test]
fn a_conflict_needs_its_text_and_a_write_that_was_sent_once() {
    let conflict = br#"{"errors":["check-and-set parameter did not match the current version"]}"#;
    for (first, then, expected) in [
        (measured("400 Bad Request", conflict), conflict.to_vec(), Err(DocumentError::Conflict)),
        (measured("503 Unavailable", b"{}"), conflict.to_vec(), Ok((false, OpenBaoError::Unsettled))),
        (
            measured("400 Bad Request", br#"{"errors":["other"]}"#),
            vec![],
            Ok((true, OpenBaoError::Rejected { status: 400 })),
        ),
    ] {
        let first = std::sync::Mutex::new(Some(first));
        let (_stand_in, client) = with(move |head| {
            if head.starts_with("GET") {
                return measured("200 OK", METADATA.as_bytes());
            }
            first.lock().unwrap().take().unwrap_or_else(|| measured("400 Bad Request", &then))
        });
        let store = OpenBaoStore::new(client, "secret/keys");
        let there = store.version().unwrap().unwrap();
        let outcome = store.write(&content("text"), Some(&there));
        match expected {
            Err(error) => assert_eq!(outcome, Err(error)),
            Ok(why) => assert_eq!(refused(outcome), why),
        }
    }
}

#[test]
fn a_redirect_is_followed_to_members_and_never_to_strangers() {
    let answer =
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#);
    let (active, _) = always(measured("200 OK", answer.as_bytes()));
    let to = |location: &str| {
        format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\nconnection: close\r\n\
             content-length: 0\r\n\r\n"
        )
        .into_bytes()
    };
    let (standby, client) = always(to(&format!("{}/v1/secret/data/kanal", active.origin())));
    // Not named: nothing goes there.
    assert_eq!(refusal(&field(client.clone(), "secret/kanal")), OpenBaoError::Redirected);
    assert!(active.heads().is_empty());
    // Named: the token goes along.
    let named = client.clone().with_members([active.origin()]).unwrap();
    assert_gives_the_key(&field(named, "secret/kanal"));
    assert!(active.heads().iter().all(|head| head.contains("x-vault-token: s.secrettoken\r\n")));
    assert!(standby.heads().iter().any(|head| head.contains("/data/kanal ")));

    // The same host with another port or scheme, or what only looks like it, is a stranger.
    let stranger = Answering::with(measured("200 OK", answer.as_bytes()));
    let port = active.address.port();
    for location in [
        format!("http://127.0.0.1:{}/v1/secret/data/kanal", stranger.address.port()),
        format!("https://127.0.0.1:{port}/v1/secret/data/kanal"),
        format!("http://127.0.0.1:{port}@127.0.0.1:{}/", stranger.address.port()),
        format!("http://localhost:{port}/v1/secret/data/kanal"),
        "//127.0.0.1/".to_owned(),
        "/v1/elsewhere".to_owned(),
        "\u{fffd}".to_owned(),
    ] {
        let (_standby, client) = always(to(&location));
        let client = client.with_members([active.origin()]).unwrap();
        assert_eq!(refusal(&field(client, "secret/kanal")), OpenBaoError::Redirected, "{location}");
    }
    assert!(stranger.heads().is_empty(), "a stranger was asked");

    // In circles, it comes to an end.
    let (circle, client) = with(|head| {
        let host = head.split("host: ").nth(1).unwrap().split("\r\n").next().unwrap();
        format!(
            "HTTP/1.1 307 T\r\nlocation: http://{host}/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )
        .into_bytes()
    });
    assert_eq!(refusal(&field(client, "secret/kanal")), OpenBaoError::NoActiveNode);
    assert!(circle.heads().len() < 60, "{}", circle.heads().len());
}

#[test]
fn the_index_of_an_answer_goes_along_with_the_next_request() {
    let answer =
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#);
    let head = format!(
        "HTTP/1.1 200 OK\r\nx-vault-index: eyJhIjoxfQ==\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{answer}",
        answer.len()
    );
    let (stand_in, client) = always(head.into_bytes());
    let source = field(client, "secret/kanal");
    assert_gives_the_key(&source);
    assert_gives_the_key(&source);
    let heads: Vec<_> =
        stand_in.heads().into_iter().filter(|head| head.contains("/secret/data/kanal ")).collect();
    assert!(!heads[0].contains("x-vault-index"));
    assert!(heads[1].contains("x-vault-index: eyJhIjoxfQ==\r\n"));
    assert!(heads.iter().all(|head| head.contains("x-vault-inconsistent: forward-active-node\r\n")));
}

#[test]
fn a_server_that_never_answers_is_left_at_the_deadline() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = keysheath::key::Origin::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let client = OpenBao::at(origin, Login::token("s.secrettoken".to_owned())).unwrap();
    let source = field(client.with_deadline(SHORT), "secret/kanal");
    crate::support::waiting::in_time(SHORT, move || {
        assert!(matches!(refusal(&source), OpenBaoError::NoAnswer(Obstacle::Deadline { .. })));
    });
}

#[test]
fn a_source_has_a_shorter_deadline_than_its_client() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = keysheath::key::Origin::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let client = OpenBao::at(origin, Login::token("s.secrettoken".to_owned())).unwrap();
    let source = field(client.with_deadline(Duration::from_secs(60)), "secret/kanal").with_deadline(SHORT);
    crate::support::waiting::in_time(SHORT, move || {
        assert!(matches!(refusal(&source), OpenBaoError::NoAnswer(Obstacle::Deadline { .. })));
    });
}

#[test]
fn a_member_that_points_to_a_dead_one_does_not_hide_the_next() {
    let answer =
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#);
    let (active, _) = always(measured("200 OK", answer.as_bytes()));
    let [port] = crate::support::openbao::free_ports();
    let dead = keysheath::key::Origin::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let away = format!(
        "HTTP/1.1 307 Away\r\nlocation: {dead}/v1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    let standby = Answering::with(away);
    let client = OpenBao::at(dead, Login::token("s.secrettoken".to_owned())).unwrap();
    let client = client.with_members([standby.origin(), active.origin()]).unwrap();
    assert_gives_the_key(&field(client.with_deadline(Duration::from_secs(20)), "secret/kanal"));
    assert!(!standby.heads().is_empty());
}

/// A client whose token lives for so many seconds, is to be renewed after two thirds of them, and gets this
/// for it.
fn renewed_by(seconds: u8, renewal: impl Fn() -> Vec<u8> + Send + 'static) -> (Answering, OpenBao) {
    let token = format!(r#"{{"data":{{"ttl":{seconds},"renewable":true}}}}"#);
    let answer =
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#);
    let stand_in = Answering::at("127.0.0.1", move |head| {
        if head.contains("/lookup-self ") {
            measured("200 OK", token.as_bytes())
        } else if head.contains("/renew-self ") {
            renewal()
        } else if head.contains("/sys/internal/ui/mounts/") {
            measured("200 OK", MOUNT.as_bytes())
        } else {
            measured("200 OK", answer.as_bytes())
        }
    });
    let client = OpenBao::at(stand_in.origin(), Login::token("s.secrettoken".to_owned())).unwrap();
    (stand_in, client)
}

fn renewals(stand_in: &Answering) -> usize {
    stand_in.heads().iter().filter(|head| head.contains("/renew-self ")).count()
}

#[test]
fn a_hanging_renewal_does_not_delay_a_call_with_a_good_token() {
    let (stand_in, client) = renewed_by(12, || {
        // As where a standby answers what is read, and the active node that it hands this to is gone.
        std::thread::sleep(Duration::from_millis(1500));
        Vec::new()
    });
    let source = field(client.with_deadline(Duration::from_secs(4)), "secret/kanal");
    assert_gives_the_key(&source);
    std::thread::sleep(Duration::from_millis(8200));
    assert_gives_the_key(&source);
    assert!(renewals(&stand_in) > 0);
}

#[test]
fn a_refused_renewal_is_retried_as_a_proxy_may_have_refused_it() {
    let refusal = || measured("403 Forbidden", br#"{"errors":["not by this proxy"]}"#);
    let (stand_in, client) = renewed_by(9, refusal);
    let source = field(client.with_deadline(SHORT), "secret/kanal");
    assert_gives_the_key(&source);
    let start = std::time::Instant::now();
    while renewals(&stand_in) < 2 {
        assert!(start.elapsed() < PATIENCE, "{} renewals", renewals(&stand_in));
        assert_gives_the_key(&source);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A stand-in that serves a key below a path alone, and a client of its address.
pub(crate) fn below(prefix: &'static str) -> (Answering, OpenBao) {
    let answer =
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#);
    let stand_in = Answering::at("127.0.0.1", move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let Some(path) = path.strip_prefix(prefix).filter(|path| path.starts_with("/v1/")) else {
            return measured("404 Not Found", b"<html>another service</html>");
        };
        if path.ends_with("/lookup-self") {
            measured("200 OK", br#"{"data":{"ttl":0}}"#)
        } else if path.contains("/sys/internal/ui/mounts/") {
            measured("200 OK", MOUNT.as_bytes())
        } else {
            measured("200 OK", answer.as_bytes())
        }
    });
    let client = OpenBao::at(stand_in.origin(), Login::token("s.secrettoken".to_owned())).unwrap();
    (stand_in, client)
}

#[test]
fn a_server_below_a_path_is_asked_there() {
    let (stand_in, client) = below("/proxy/bao");
    for prefix in ["/proxy/bao", "proxy/bao", "/proxy/bao/"] {
        let client = client.clone().with_path_prefix(prefix).unwrap();
        assert_gives_the_key(&field(client, "secret/kanal"));
    }
    assert_eq!(refusal(&field(client.clone(), "secret/kanal")), OpenBaoError::NotOpenBao { status: 404 });
    let asked = stand_in.heads().len();
    for prefix in ["", "/", "//bao", "/bao//", "/../bao", "/./bao", "/b?o", "/b#o", "/b%2fo", "/b o", "/bäo"]
    {
        let refused = client.clone().with_path_prefix(prefix).map(|_| ()).unwrap_err();
        assert!(matches!(refused, OpenBaoError::BadName { .. }), "{prefix}: {refused}");
    }
    assert_eq!(stand_in.heads().len(), asked);
}

#[test]
fn a_token_goes_in_the_clear_to_a_host_that_is_named_alone() {
    let (stand_in, _) = below("");
    let named = Origin::parse(&format!("http://localhost:{}", stand_in.address.port())).unwrap();
    let other = Origin::parse("http://bao.example:8200").unwrap();
    let login = || Login::token("s.secrettoken".to_owned());
    let error = OpenBao::at(named.clone(), login()).map(|_| ()).unwrap_err();
    assert_eq!(error, OpenBaoError::NotHttps);
    assert!(error.to_string().contains("at_plain_http"), "{error}");
    let client = OpenBao::at_plain_http(named, login()).unwrap();
    assert_gives_the_key(&field(client, "secret/kanal"));
    let strict = OpenBao::at(stand_in.origin(), login()).unwrap();
    assert_eq!(strict.with_members([other]).map(|_| ()), Err(OpenBaoError::NotHttps));
}

#[test]
fn the_index_that_is_kept_is_the_newest_and_not_the_last() {
    use base64::Engine as _;

    let index = |value: u32| {
        let json = format!(r#"{{"cluster":"0a0814e0-4be0","value":"{value}"}}"#);
        base64::engine::general_purpose::STANDARD.encode(json)
    };
    let values = std::sync::Mutex::new([38, 9, 100].into_iter());
    // Answers that overtake each other: the one that was made first comes last.
    let (stand_in, client) = with(move |_| {
        let index = index(values.lock().unwrap().next().unwrap_or(100));
        let answer = format!(
            r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#
        );
        let length = answer.len();
        format!(
            "HTTP/1.1 200 OK\r\nx-vault-index: {index}\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{answer}"
        )
        .into_bytes()
    });
    let source = field(client, "secret/kanal");
    (0..4).for_each(|_| assert_gives_the_key(&source));
    let heads: Vec<_> =
        stand_in.heads().into_iter().filter(|head| head.contains("/secret/data/kanal ")).collect();
    let sent: Vec<_> = heads
        .iter()
        .map(|head| head.lines().find_map(|line| line.strip_prefix("x-vault-index: ")).map(str::to_owned))
        .collect();
    let expected = [None, Some(38), Some(38), Some(100)];
    assert_eq!(sent, expected.map(|value| value.map(index)));
}

#[test]
fn a_login_whose_mount_leads_elsewhere_is_refused_at_once() {
    let origin = || Origin::https("bao.example");
    for mount in ["", "../sys", "a//b", "k8s/", "/k8s", "a\nb", "."] {
        for login in [
            Login::kubernetes("shop-sync").at_mount(mount),
            Login::app_role("role".to_owned()).with_secret_id("secret".to_owned()).at_mount(mount),
        ] {
            let refused = OpenBao::at(origin(), login).map(|_| ()).unwrap_err();
            assert!(matches!(refused, OpenBaoError::BadName { .. }), "{mount:?}: {refused}");
        }
    }
    assert!(OpenBao::at(origin(), Login::kubernetes("shop-sync").at_mount("team/k8s")).is_ok());
}

#[test]
fn a_login_that_is_renewed_for_little_logs_in_again() {
    let answer =
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":1,"created_time":"t"}}}}}}"#);
    let stand_in = Answering::at("127.0.0.1", move |head| {
        let auth = |seconds: u32| {
            let json = format!(
                r#"{{"auth":{{"client_token":"s.token","lease_duration":{seconds},"renewable":true}}}}"#
            );
            measured("200 OK", json.as_bytes())
        };
        if head.contains("/auth/approle/login ") {
            auth(6)
        } else if head.contains("/renew-self ") {
            // Less than half of the first: the end that no renewal moves is near.
            auth(2)
        } else if head.contains("/sys/internal/ui/mounts/") {
            measured("200 OK", MOUNT.as_bytes())
        } else {
            measured("200 OK", answer.as_bytes())
        }
    });
    let login = Login::app_role("role".to_owned()).with_secret_id("secret".to_owned());
    let source = field(OpenBao::at(stand_in.origin(), login).unwrap(), "secret/kanal");
    let count = |what: &str| stand_in.heads().iter().filter(|head| head.contains(what)).count();
    let start = std::time::Instant::now();
    while count("/auth/approle/login ") < 2 {
        assert!(start.elapsed() < PATIENCE, "{:?}", stand_in.heads());
        assert_gives_the_key(&source);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(count("/renew-self "), 1, "it is renewed once, and had again after that");
}
