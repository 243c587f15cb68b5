//! What a substitute for Kanal answers, written against the documented table and nothing else. It
//! knows a server by what it answers only.

use std::fmt::Write as _;

use keysheath::key::StoreId;
use keysheath::registry::{KeyRegistry, TeamId};

/// A request. A header's value is bytes, because a client may send any.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// What came back; names of headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A server with two teams. Stores 123 and 124 are the first team's, 789 is as well and paused, 456 is the
/// second team's, 457 is as well and paused; no other exists.
pub(crate) trait Server {
    fn ask(&self, ask: &Ask) -> Answer;

    fn keys(&self) -> &Keys;

    /// A key of the first team, without a restriction.
    fn key(&self) -> &str {
        &self.keys().0[0]
    }

    /// A key of the first team, restricted to store 124.
    fn restricted_key(&self) -> &str {
        &self.keys().0[1]
    }

    /// A key of the second team.
    fn other_key(&self) -> &str {
        &self.keys().0[2]
    }

    /// A key of the first team that was deleted.
    fn deleted_key(&self) -> &str {
        &self.keys().0[3]
    }
}

/// The suite's stores: number, team, whether it is paused.
const STORES: [(u64, u32, bool); 5] =
    [(123, 1, false), (124, 1, false), (789, 1, true), (456, 2, false), (457, 2, true)];

fn store(number: u64) -> StoreId {
    StoreId::new(number).unwrap()
}

/// The suite's keys: own, restricted, the other team's, deleted.
pub(crate) struct Keys([String; 4]);

impl Keys {
    pub(crate) fn of(registry: &KeyRegistry) -> Self {
        for (number, team, is_paused) in STORES {
            registry.put_store(store(number), TeamId::new(team)).unwrap();
            if is_paused {
                registry.pause_store(store(number)).unwrap();
            }
        }
        let new = |team, name, restriction| match restriction {
            None => registry.create_key(TeamId::new(team), name).unwrap(),
            Some(store) => registry.create_key_for_store(TeamId::new(team), name, store).unwrap(),
        };
        let keys = [
            new(1, "own", None),
            new(1, "restricted", Some(store(124))),
            new(2, "other", None),
            new(1, "deleted", None),
        ];
        registry.delete_key(keys[3].record().id()).unwrap();
        Self(keys.map(|new| new.key().expose_secret().to_owned()))
    }
}

/// The documented body of the customer upsert.
const CUSTOMER: &str = r#"{ "phone": "+33612345678", "first_name": "Test" }"#;

const MISSING: (u16, &str) = (401, r#"{ "error": "API key is missing" }"#);
const INVALID: (u16, &str) = (401, r#"{ "error": "Invalid API key" }"#);
const FORBIDDEN: (u16, &str) = (403, r#"{ "error": "API key does not authorize this store" }"#);
const NOT_FOUND: (u16, &str) = (404, r#"{ "error": "Store not found or paused" }"#);

/// A key that no store has.
const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";

pub(crate) fn run(server: &dyn Server) {
    an_authorized_request_is_accepted(server);
    each_row_of_the_table_is_answered_word_for_word(server);
    a_store_that_is_no_number_is_not_found(server);
    a_malformed_header_is_an_unknown_key(server);
    two_headers_are_an_unknown_key(server);
    the_scheme_is_read_in_any_case_and_with_any_number_of_spaces(server);
    the_challenge_is_as_rfc_6750_has_it(server);
    no_preflight_is_answered(server);
    a_route_that_is_not_there_is_not_found_with_or_without_a_key(server);
    the_key_is_looked_at_before_the_content(server);
}

fn customers(store: &str) -> String {
    format!("/api/v1/stores/{store}/customers")
}

fn upsert(store: &str, authorization: Option<&[u8]>) -> Ask {
    let mut headers = vec![("content-type", b"application/json".to_vec())];
    headers.extend(authorization.map(|value| ("authorization", value.to_vec())));
    Ask { method: "POST", path: customers(store), headers, body: CUSTOMER.into() }
}

fn bearer(key: &str) -> Vec<u8> {
    format!("Bearer {key}").into_bytes()
}

fn with_key(store: &str, key: &str) -> Ask {
    upsert(store, Some(&bearer(key)))
}

fn assert_row(server: &dyn Server, ask: &Ask, (status, body): (u16, &str), why: &str) -> Answer {
    let answer = server.ask(ask);
    let shown = String::from_utf8_lossy(&answer.body);
    assert_eq!((answer.status, &*shown), (status, body), "{why}: {ask:?}");
    assert_eq!(header(&answer, "content-type").as_deref(), Some("application/json"), "{why}");
    assert_silent(server, &answer);
    answer
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    answer.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
}

/// No answer repeats a key.
fn assert_silent(server: &dyn Server, answer: &Answer) {
    let mut shown = String::from_utf8_lossy(&answer.body).into_owned();
    for (name, value) in &answer.headers {
        let _ = write!(shown, "\n{name}: {value}");
    }
    for key in [server.key(), server.restricted_key(), server.other_key(), server.deleted_key(), UNKNOWN] {
        for run in key.as_bytes().windows(6) {
            let run = std::str::from_utf8(run).unwrap();
            assert!(!shown.contains(run), "a part of a key is in the answer: {shown}");
        }
    }
}

fn an_authorized_request_is_accepted(server: &dyn Server) {
    for (store, key) in [
        ("123", server.key()),
        ("124", server.key()),
        ("124", server.restricted_key()),
        ("456", server.other_key()),
    ] {
        let answer = server.ask(&with_key(store, key));
        assert!((200..300).contains(&answer.status), "store {store}: {answer:?}");
        assert_silent(server, &answer);
    }
}

fn each_row_of_the_table_is_answered_word_for_word(server: &dyn Server) {
    let (key, restricted, other) = (server.key(), server.restricted_key(), server.other_key());
    assert_row(server, &upsert("123", None), MISSING, "no header");
    assert_row(server, &with_key("123", UNKNOWN), INVALID, "an unknown key");
    assert_row(server, &with_key("123", server.deleted_key()), INVALID, "a deleted key");
    assert_row(server, &with_key("456", key), FORBIDDEN, "another team's store");
    assert_row(server, &with_key("123", other), FORBIDDEN, "another team's key");
    assert_row(server, &with_key("123", restricted), FORBIDDEN, "a key that is restricted to another store");
    assert_row(server, &with_key("999", key), NOT_FOUND, "an unknown store");
    assert_row(server, &with_key("789", key), NOT_FOUND, "a paused store");
    // Which row wins is documented by us, not by Kanal.
    assert_row(server, &upsert("999", None), MISSING, "the key comes before the store");
    assert_row(server, &with_key("999", UNKNOWN), INVALID, "the key comes before the store");
    assert_row(server, &with_key("457", key), FORBIDDEN, "that another team's store is paused is not shown");
    assert_row(server, &with_key("789", restricted), FORBIDDEN, "the authorization comes before the pause");
}

fn a_store_that_is_no_number_is_not_found(server: &dyn Server) {
    for store in
        ["0", "-1", "00123", "+123", "123.0", "0x7b", "twelve", "99999999999999999999", "%20123", "١٢٣"]
    {
        let store = if store.is_ascii() { store.to_owned() } else { "%D9%A1%D9%A2%D9%A3".to_owned() };
        assert_row(server, &with_key(&store, server.key()), NOT_FOUND, &store);
        assert_row(server, &upsert(&store, None), MISSING, &store);
    }
}

fn a_malformed_header_is_an_unknown_key(server: &dyn Server) {
    let key = server.key();
    let mut values: Vec<Vec<u8>> = [
        "Bearer".to_owned(),
        key.to_owned(),
        format!("Bearer{key}"),
        format!("Basic {key}"),
        format!("Token {key}"),
        format!("Bearers {key}"),
        format!("Bearer Bearer {key}"),
        format!("Bearer \"{key}\""),
        format!("Bearer <{key}>"),
        format!("Bearer token={key}"),
        format!("Bearer {key} {key}"),
        format!("Bearer {key},"),
        format!("Bearer {key}, Bearer {key}"),
        format!("Bearer {}", &key[1..]),
        format!("Bearer {key}A"),
        format!("Bearer {}=", &key[1..]),
        format!("Bearer ={}", &key[1..]),
        format!("Bearer {}!", &key[1..]),
        format!("Bearer {}", key.to_lowercase() + "x"),
        format!("Bearer {}", "A".repeat(4000)),
        format!("Bearer \u{feff}{key}"),
        format!("Bearer\u{a0}{key}"),
        format!("Bearer \t{key}"),
    ]
    .map(String::into_bytes)
    .to_vec();
    values.push([&bearer(key)[..], b"\xff"].concat());
    for value in values {
        let shown = String::from_utf8_lossy(&value).replace(key, "KEY");
        assert_row(server, &upsert("123", Some(&value)), INVALID, &shown);
    }
}

fn two_headers_are_an_unknown_key(server: &dyn Server) {
    let key = server.key();
    for second in [bearer(key), bearer(UNKNOWN), b"Basic x".to_vec()] {
        for swapped in [false, true] {
            let mut values = [bearer(key), second.clone()];
            if swapped {
                values.reverse();
            }
            let mut ask = upsert("123", None);
            ask.headers.extend(values.map(|value| ("authorization", value)));
            assert_row(server, &ask, INVALID, "two headers");
        }
    }
}

fn the_scheme_is_read_in_any_case_and_with_any_number_of_spaces(server: &dyn Server) {
    for scheme in ["bearer ", "BEARER ", "bEARER ", "Bearer    ", "Bearer                    "] {
        let value = format!("{scheme}{}", server.key()).into_bytes();
        let answer = server.ask(&upsert("123", Some(&value)));
        assert!((200..300).contains(&answer.status), "{scheme:?}: {answer:?}");
    }
}

fn the_challenge_is_as_rfc_6750_has_it(server: &dyn Server) {
    let challenge = |ask: &Ask| header(&server.ask(ask), "www-authenticate");
    assert_eq!(challenge(&upsert("123", None)).as_deref(), Some("Bearer realm=\"kanal\""));
    let invalid = "Bearer realm=\"kanal\", error=\"invalid_token\"";
    assert_eq!(challenge(&with_key("123", UNKNOWN)).as_deref(), Some(invalid));
    let scope = "Bearer realm=\"kanal\", error=\"insufficient_scope\"";
    assert_eq!(challenge(&with_key("456", server.key())).as_deref(), Some(scope));
    assert_eq!(challenge(&with_key("999", server.key())), None);
    assert_eq!(challenge(&with_key("123", server.key())), None);
}

fn no_preflight_is_answered(server: &dyn Server) {
    let mut ask = upsert("123", None);
    ask.method = "OPTIONS";
    ask.body.clear();
    for (name, value) in [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ] {
        ask.headers.push((name, value.into()));
    }
    let answer = server.ask(&ask);
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let cors = answer.headers.iter().find(|(name, _)| name.starts_with("access-control-"));
    assert_eq!(cors, None, "a browser would be let through");
}

fn a_route_that_is_not_there_is_not_found_with_or_without_a_key(server: &dyn Server) {
    for path in ["/", "/api/v1/no-such-thing", "/api/v2/stores/123/customers"] {
        for authorization in [None, Some(bearer(server.key())), Some(bearer(UNKNOWN))] {
            let mut ask = upsert("123", authorization.as_deref());
            path.clone_into(&mut ask.path);
            let answer = server.ask(&ask);
            assert_eq!(answer.status, 404, "{path}");
            assert_ne!(answer.body, NOT_FOUND.1.as_bytes(), "{path}: that is a store's answer");
        }
    }
}

fn the_key_is_looked_at_before_the_content(server: &dyn Server) {
    for body in ["", "not JSON", "[]", "{}", r#"{"phone": 7}"#] {
        let mut ask = upsert("123", None);
        ask.body = body.into();
        assert_row(server, &ask, MISSING, body);
        ask.headers.push(("authorization", bearer(UNKNOWN)));
        assert_row(server, &ask, INVALID, body);
    }
}
