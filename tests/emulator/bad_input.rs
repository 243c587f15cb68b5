//! What no client should send: bodies, paths and heads.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use keysheath::emulator::{Emulator, EmulatorError, Fault, FaultRule, OWN_STORE};
use keysheath::failure::Meaning;
use keysheath::key::Origin;

use super::{CUSTOMER, ask, ask_with, customers_of, documented};
use crate::support::http::{agent, connect, raw, send};

fn hurried() -> Emulator {
    Emulator::kanal().with_read_timeout(Duration::from_millis(300)).start().unwrap()
}

/// The head of a request to write a customer, with the emulator's key by default.
fn head(emulator: &Emulator, with_key: bool, rest: &str) -> String {
    let key = if with_key { emulator.key().expose_secret() } else { "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z" };
    format!(
        "POST /api/v1/stores/123/customers HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\n{rest}\r\n\r\n"
    )
}

/// Writes a head, then the same piece again and again until the server is tired of it, and reads its answer.
fn pour(origin: &Origin, head: &str, piece: &[u8], pause: Duration) -> (String, Duration) {
    let start = Instant::now();
    let mut stream = connect(origin);
    stream.write_all(head.as_bytes()).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let piece = piece.to_vec();
    let writing = std::thread::spawn(move || {
        while writer.write_all(&piece).is_ok() {
            std::thread::sleep(pause);
        }
    });
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).unwrap();
    answer.truncate(read);
    let answered = start.elapsed();
    writing.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "it was cut off in the end");
    (String::from_utf8(answer).unwrap(), answered)
}

#[test]
fn a_wrong_body_is_answered_422_and_a_wrong_media_type_415() {
    let emulator = Emulator::start().unwrap();
    for body in [
        "",
        "null",
        "[]",
        "7",
        "\"text\"",
        "{",
        "{}",
        "not json",
        "phone=%2B33612345678",
        r#"{ "phone": null }"#,
        r#"{ "phone": 33612345678 }"#,
        r#"{ "phone": ["+33612345678"] }"#,
        r#"{ "phone": "0612345678" }"#,
        r#"{ "phone": "+33612345678", "email": {} }"#,
    ] {
        let answer = ask(&emulator, "POST", &customers_of(OWN_STORE), body);
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        assert!(answer.json()["errors"].is_object(), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(ask(&emulator, "POST", &customers_of(OWN_STORE), &deep).status, 422);
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"] {
        let request = ureq::http::Request::post(format!("{}{}", emulator.origin(), customers_of(OWN_STORE)))
            .header("authorization", format!("Bearer {}", emulator.key().expose_secret()))
            .header("content-type", media_type);
        let answer = send(&agent(None), request.body(CUSTOMER.to_owned()).unwrap()).unwrap();
        assert_eq!(answer.status, 415, "{media_type}");
    }
    assert!(emulator.customers(OWN_STORE).is_empty());
}

#[test]
fn a_body_of_10_mb_is_answered_413_and_one_with_a_bad_key_401() {
    let emulator = Emulator::start().unwrap();
    let body = "x".repeat(10 * 1024 * 1024);
    assert_eq!(ask(&emulator, "POST", &customers_of(OWN_STORE), &body).status, 413);
    assert_eq!(ask_with(&emulator, None, "POST", &customers_of(OWN_STORE), &body).status, 401);
    let fits = format!(r#"{{ "phone": "+33612345678", "more": "{}" }}"#, "x".repeat(1024 * 1024 - 100));
    assert_eq!(ask(&emulator, "POST", &customers_of(OWN_STORE), &fits).status, 201);
}

#[test]
fn the_key_is_looked_at_before_any_of_the_body_is_asked_for() {
    let emulator = Emulator::start().unwrap();
    let rest = "content-length: 1000\r\nexpect: 100-continue";
    let answer = raw(emulator.origin(), head(&emulator, false, rest)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let mut stream = connect(emulator.origin());
    stream.write_all(head(&emulator, true, rest).as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 100");
}

#[test]
fn a_chunked_body_that_never_ends_is_cut_off_at_its_size() {
    let emulator = Emulator::start().unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let head = |with_key| head(&emulator, with_key, "transfer-encoding: chunked");
    let (answer, _) = pour(emulator.origin(), &head(true), chunk.as_bytes(), Duration::ZERO);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let (answer, _) = pour(emulator.origin(), &head(false), chunk.as_bytes(), Duration::ZERO);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn a_body_that_drips_for_ever_is_cut_off_at_its_time() {
    let emulator = hurried();
    let head = head(&emulator, true, "transfer-encoding: chunked");
    let (answer, after) = pour(emulator.origin(), &head, b"1\r\nx\r\n", Duration::from_millis(20));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(after < Duration::from_secs(3), "{after:?}");
}

#[test]
fn a_head_that_never_ends_is_cut_off_by_size_and_by_time() {
    let emulator = hurried();
    let start = Instant::now();
    let mut stream = connect(emulator.origin());
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).ok();
    assert!(start.elapsed() < Duration::from_secs(5), "nothing more came, and it was closed");

    let patient = Emulator::start().unwrap();
    let long = format!("x-more: {}\r\n", "x".repeat(8192));
    let (answer, _) = pour(patient.origin(), "GET / HTTP/1.1\r\n", long.as_bytes(), Duration::ZERO);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn a_client_that_reads_none_of_its_answers_is_given_up() {
    let settings = Emulator::katana().with_read_timeout(Duration::from_millis(300));
    let emulator = settings.start().unwrap();
    let start = Instant::now();
    let mut stream = connect(emulator.origin());
    let ask = format!(
        "GET /v1/products?limit=250 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        emulator.key().expose_secret()
    );
    while stream.write_all(ask.as_bytes()).is_ok() {}
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(emulator.journal().len() > 10, "it read as long as it was read");
}

#[test]
fn an_invalid_store_id_is_not_found_and_a_missing_one_is_named() {
    let emulator = Emulator::start().unwrap();
    let (status, body) = documented(Meaning::StoreNotFound);
    for store in [
        "0",
        "-1",
        "+1",
        "99999999999999999999",
        "00123",
        "text",
        "1.5",
        "0x7b",
        "123%20",
        "%31%32%33",
        "%00",
    ] {
        let answer = ask(&emulator, "POST", &format!("/api/v1/stores/{store}/customers"), CUSTOMER);
        assert_eq!((answer.status, &answer.body), (status, &body), "{store}");
        let refused = ask_with(&emulator, None, "POST", &format!("/api/v1/stores/{store}/customers"), "");
        assert_eq!(refused.status, 401, "{store}: the key comes first");
    }
    let missing = ask(&emulator, "POST", "/api/v1/stores//customers", CUSTOMER);
    assert_eq!(missing.status, 400);
    assert!(missing.json()["error"].is_string());
    assert_eq!(ask_with(&emulator, None, "POST", "/api/v1/stores//customers", "").status, 401);
    assert!(emulator.customers(OWN_STORE).is_empty());
}

#[test]
fn an_unknown_path_is_404_and_a_wrong_method_needs_a_key() {
    let emulator = Emulator::start().unwrap();
    for path in [
        "/",
        "/api/v1/stores/123",
        "/api/v1/stores/123/customers/7",
        "/v1/products",
        "/api/v1/stores/123/nothing",
    ] {
        for key in [None, Some(emulator.key())] {
            let answer = ask_with(&emulator, key, "GET", path, "");
            assert_eq!(answer.status, 404, "{path}");
            assert_ne!(answer.body, documented(Meaning::StoreNotFound).1, "it is no refusal of a store");
        }
    }
    assert_eq!(ask(&emulator, "GET", &customers_of(OWN_STORE), "").status, 405);
    for method in ["GET", "OPTIONS", "DELETE"] {
        assert_eq!(ask_with(&emulator, None, method, &customers_of(OWN_STORE), "").status, 401, "{method}");
    }
}

#[test]
fn input_that_is_not_http_does_not_disturb_other_connections() {
    let emulator = hurried();
    for bytes in [
        &b"\r\n\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\0\0\0\0",
    ] {
        let answer = raw(emulator.origin(), bytes).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let two_lengths = head(&emulator, true, "content-length: 1\r\ncontent-length: 2");
    assert!(raw(emulator.origin(), two_lengths).unwrap().starts_with("HTTP/1.1 400 "));
    assert_eq!(ask(&emulator, "POST", &customers_of(OWN_STORE), CUSTOMER).status, 201);
}

#[test]
fn a_request_has_one_host() {
    let emulator = Emulator::start().unwrap();
    let key = emulator.key().expose_secret();
    let ask = |version: &str, hosts: &[&str]| {
        let hosts = hosts.iter().fold(String::new(), |lines, host| format!("{lines}host:{host}\r\n"));
        let rest = format!("authorization: Bearer {key}\r\nconnection: close\r\n\r\n");
        let request = format!("GET /api/v1/stores/123/orders {version}\r\n{hosts}{rest}");
        let answers =
            [emulator.origin(), emulator.control_origin()].map(|origin| raw(origin, &request).unwrap());
        answers.map(|answer| answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap())
    };
    for hosts in [&[][..], &["127.0.0.1", "127.0.0.1"], &["a", "b"], &[""], &["a b"], &["user@a"], &["a/b"]] {
        assert_eq!(ask("HTTP/1.1", hosts), [400, 400], "{hosts:?}");
    }
    assert_eq!(ask("HTTP/1.0", &["a", "b"]), [400, 400]);
    for host in ["127.0.0.1", "localhost:8080", "[::1]:8080", "shop.example"] {
        assert_eq!(ask("HTTP/1.1", &[host])[0], 200, "{host}");
    }
    assert_eq!(ask("HTTP/1.0", &[])[0], 200, "that version has none");
    assert!(
        emulator.journal().iter().all(|entry| entry.status == Some(200)),
        "what is no request is not in it"
    );
}

#[test]
fn a_request_gives_its_length_once() {
    let emulator = Emulator::start().unwrap();
    let body = CUSTOMER;
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let (length, encoding) = (format!("content-length: {}", chunked.len()), "transfer-encoding: chunked");
    for (first, second) in [(&*length, encoding), (encoding, &*length), ("content-length: 0", encoding)] {
        let request = head(&emulator, true, &format!("{first}\r\n{second}")) + &chunked;
        let answer = raw(emulator.origin(), &request).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{first}, {second}: {answer}");
        assert!(answer.contains("connection: close") && answer.contains("Content-Length"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "nothing behind it was answered: {answer}");
        assert!(emulator.customers(OWN_STORE).is_empty());
        // And behind a good request on the same connection.
        let good = head(&emulator, true, encoding) + &chunked;
        let answers = raw(emulator.origin(), good.clone() + &request + &good).unwrap();
        let statuses: Vec<&str> =
            answers.matches("HTTP/1.1 201").chain(answers.matches("HTTP/1.1 400")).collect();
        assert_eq!((statuses.len(), answers.matches("HTTP/1.1").count()), (2, 2), "{answers}");
        assert_eq!(emulator.customers(OWN_STORE).len(), 1);
        emulator.reset();
    }
}

#[test]
fn head_is_answered_as_get_without_the_body() {
    let nested = Emulator::katana().with_nested_errors().start().unwrap();
    let (kanal, katana) = (Emulator::start().unwrap(), Emulator::katana().start().unwrap());
    for emulator in [&kanal, &katana, &nested] {
        for fault in
            [None, Some(Fault::status(503).with_body("<html>gateway</html>")), Some(Fault::status(429))]
        {
            emulator.clear_faults();
            fault.map(|fault| emulator.add_fault(FaultRule::new(fault)).unwrap());
            for path in [
                "/api/v1/stores/123/orders",
                "/api/v1/stores/456/orders",
                "/api/v1/stores/789/orders",
                "/api/v1/stores//orders",
                "/v1/products",
                "/v1/products?limit=0",
                "/nothing",
                "/api/v1/stores/123/customers",
            ] {
                for key in [emulator.key().expose_secret(), "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"] {
                    let ask = |method: &str| {
                        let head =
                            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}");
                        let answer = raw(emulator.origin(), head + "\r\nconnection: close\r\n\r\n").unwrap();
                        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        let status = head.split(' ').nth(1).unwrap().to_owned();
                        (status, length.unwrap_or("none").to_owned(), body.len())
                    };
                    let (get, head) = (ask("GET"), ask("HEAD"));
                    assert_eq!(get.1, get.2.to_string(), "{emulator:?} {path} {get:?}");
                    assert_eq!((head.0, head.1, head.2), (get.0, get.1, 0), "{emulator:?} HEAD {path}");
                }
            }
        }
    }
}

#[test]
fn a_head_whose_body_is_cut_short_has_no_body_to_cut() {
    let emulator = Emulator::start().unwrap();
    let key = emulator.key().expose_secret();
    let ask = |method: &str| {
        let head =
            format!("{method} /api/v1/stores/123/orders HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}");
        let answer = raw(emulator.origin(), head + "\r\nconnection: close\r\n\r\n").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::to_owned);
        (length, body.len())
    };
    let whole = ask("GET");
    emulator.add_fault(FaultRule::new(Fault::TruncatedBody)).unwrap();
    assert_eq!(ask("HEAD"), (whole.0.clone(), 0));
    assert_eq!(ask("GET"), (whole.0, whole.1 / 2));
}

#[test]
fn a_time_out_that_no_clock_reaches_is_as_long_as_the_longest() {
    let emulator = Emulator::kanal().with_read_timeout(Duration::MAX).start().unwrap();
    assert_eq!(ask(&emulator, "POST", &customers_of(OWN_STORE), CUSTOMER).status, 201);
    assert_eq!(ask(&emulator, "GET", "/api/v1/stores/123/orders", "").status, 200);
}

#[test]
fn what_an_issuer_does_not_have_is_refused() {
    let refused = Emulator::kanal().with_nested_errors().start().unwrap_err();
    assert_eq!(refused, EmulatorError::NestedErrors);
    assert!(refused.to_string().contains("--nested-errors"));
}

#[test]
fn two_authorization_headers_are_refused() {
    let emulator = Emulator::start().unwrap();
    let twice = format!(
        "content-length: 0\r\nconnection: close\r\nauthorization: Bearer {}",
        emulator.key().expose_secret()
    );
    let answer = raw(emulator.origin(), head(&emulator, true, &twice)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}
