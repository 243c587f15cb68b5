//! Untrusted answers of OpenBao, over a real connection. The first byte says what is asked; each answer is a
//! line with its status, a line that is left out or not, and a body, and ends at a line of three dashes. A
//! request that finds none left is answered with a plain 404.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keysheath::key::{Issuer as _, Katana, Origin};
use keysheath::openbao::{Login, OpenBao};
use keysheath::source::{self, Loaded, OpenBaoField};
use keysheath::store::{DocumentContent, DocumentStore as _, OpenBaoStore};
use serde_json::Value;

const TOKEN: &str = "s.token-that-is-never-shown";
const SECRET_ID: &str = "secret-id-that-is-never-shown";

/// A status and a body.
type Answer = (u16, Vec<u8>);

/// What is answered next, and what was answered last.
static ANSWERS: Mutex<(VecDeque<Answer>, Option<Answer>)> = Mutex::new((VecDeque::new(), None));

static SERVER: LazyLock<SocketAddr> = LazyLock::new(serve);

/// A client with its token, which asks each thing once: what is left of its deadline is shorter than a pause.
static CLIENT: LazyLock<OpenBao> = LazyLock::new(|| {
    let client = client(Login::token(TOKEN.to_owned()));
    set(VecDeque::from([(200, br#"{"data":{"ttl":0}}"#.to_vec())]));
    // The token is looked at first, and then there is no mount.
    assert!(source::load(&OpenBaoField::new(client.clone(), "a/b", "c"), Katana::PROFILE).is_err());
    client
});

fn client(login: Login) -> OpenBao {
    let origin = Origin::parse(&format!("http://{}", *SERVER)).expect("an origin");
    OpenBao::at(origin, login).expect("loopback").with_deadline(Duration::from_millis(95))
}

fn set(answers: VecDeque<Answer>) {
    *ANSWERS.lock().unwrap_or_else(PoisonError::into_inner) = (answers, None);
}

fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Connections are kept, and a client may have several.
            std::thread::spawn(move || while answer(&stream).is_some() {});
        }
    });
    address
}

/// None at the end of the connection.
fn answer(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        } else if line.len() <= 2 {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    let next = answers.0.pop_front().unwrap_or_else(|| (404, br#"{"errors":[]}"#.to_vec()));
    let (status, body) = &next;
    let mut bytes = format!("HTTP/1.1 {status} X\r\n").into_bytes();
    if (300..400).contains(status) {
        bytes.extend_from_slice(format!("location: http://{}/v1/x\r\n", *SERVER).as_bytes());
    }
    // Of these there is no body.
    let body = if matches!(status, 204 | 304) { &b""[..] } else { body };
    if !matches!(status, 204 | 304) {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    answers.1 = Some(next);
    drop(answers);
    stream.write_all(&bytes).ok()
}

fn parse(data: &[u8]) -> VecDeque<Answer> {
    let text = data.split(|byte| *byte == b'\n');
    let mut answers = VecDeque::new();
    let mut current: Option<Answer> = None;
    for line in text {
        match &mut current {
            None => {
                let status = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
                // A 1xx is no answer yet.
                current =
                    Some((status.filter(|status| (200..600).contains(status)).unwrap_or(200), Vec::new()));
            }
            Some(_) if line == b"---" => answers.extend(current.take()),
            Some((_, body)) => body.extend_from_slice(line),
        }
    }
    answers.extend(current);
    answers.truncate(8);
    answers
}

pub fn openbao(data: &[u8]) {
    let client = CLIENT.clone();
    let (what, rest) = data.split_first().unwrap_or((&b'k', b""));
    set(parse(rest));
    match what {
        b'v' => {
            let store = OpenBaoStore::new(client, "secret/shop/keys");
            if let Some(version) = silent(store.version()).flatten() {
                // The answers were used up by that: what is asked now is that there is nothing.
                assert_eq!(silent(store.write(&DocumentContent::from(b"x".to_vec()), Some(&version))), None);
            }
        }
        b'r' => {
            let store = OpenBaoStore::new(client, "secret/shop/keys");
            if let Some(document) = silent(store.read()).flatten() {
                let there = last(200);
                let fields = &there["data"]["data"];
                if fields.is_object() {
                    assert_eq!(fields["keysheath"], "document 1");
                    let content = STANDARD.encode(document.content().expose_secret());
                    assert_eq!(fields["content"], content, "another content than there is");
                }
            }
        }
        b'w' => {
            let store = OpenBaoStore::new(client, "secret/shop/keys");
            let _ = silent(store.write(&DocumentContent::from(b"x".to_vec()), None)).map(|_| last(200));
        }
        b'l' => {
            let login = Login::app_role("a-role".to_owned()).with_secret_id(SECRET_ID.to_owned());
            load(self::client(login));
        }
        b't' => load(self::client(Login::token(TOKEN.to_owned()))),
        _ => load(client),
    }
}

fn load(client: OpenBao) {
    let source = OpenBaoField::new(client, "secret/shop/katana", "key");
    match silent(source::load(&source, Katana::PROFILE)) {
        Some(Loaded::Found(found)) => {
            let there = last(200);
            // Inside, a list is taken for an object by the order of its fields.
            if !there["data"].is_object() || !there["data"]["metadata"].is_object() {
                return;
            }
            assert_eq!(
                there["data"]["data"]["key"],
                found.key().expose_secret(),
                "another key than there is"
            );
            // 0 is no version, and is not shown.
            let version = there["data"]["metadata"]["version"].as_u64().unwrap_or(0);
            let shown = found.provenance().to_string();
            assert!(version == 0 || shown.ends_with(&format!("version {version}")), "{shown} is {version}");
            assert_ne!(there["data"]["metadata"]["destroyed"], true, "it is gone");
        }
        Some(Loaded::Absent(_)) => {
            let there = last(404);
            assert!(
                there["errors"] == Value::Array(Vec::new()) || there["errors"].is_null(),
                "it was not said"
            );
        }
        None => {}
    }
}

/// What was answered last, which had this status, as another reader of JSON sees it: Null where it takes
/// less, such as no 1e999 in what is ignored.
fn last(status: u16) -> Value {
    let answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    let (found, body) = answers.1.as_ref().expect("an answer");
    assert_eq!(*found, status);
    serde_json::from_str(&String::from_utf8_lossy(body)).unwrap_or_default()
}

/// The value, or None for an error that shows nothing of what was sent.
fn silent<T, E: std::fmt::Debug + std::fmt::Display>(outcome: Result<T, E>) -> Option<T> {
    let shown = match outcome {
        Ok(value) => return Some(value),
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains("never-shown"), "a secret is shown");
    None
}
