//! P2, the part that is measured and not promised: what third-party code leaves of a key in freed heap
//! blocks, with the system's allocator and with one that wipes what is freed.
//!
//! ```sh
//! cargo test --all-features --test residue report -- --nocapture
//! ```
//!
//! prints the table of SECURITY.md, and fails where a figure is above the one that stands there.
#![allow(unsafe_code, reason = "to set a variable is unsafe")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread::{self, JoinHandle};

use crate::support::residue::{KEY, NONE, Residue, residue_of, residue_when_wiping};
use crate::support::secret_service::with_keychain;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keysheath::client::{BearerHeader, BearerLayer, OriginGuard};
use keysheath::failure::Meaning;
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Issuer, Kanal, Origin};
use keysheath::source::{self, Keychain, KeychainItem, Loaded, Source, Variable};
use tower::{Layer as _, ServiceExt as _};

/// One line of the table: what was done, how, and the most that SECURITY.md says it leaves.
struct Place {
    what: &'static str,
    run: fn(&Path),
    most: Residue,
}

const fn place(what: &'static str, whole: usize, partial: usize, run: fn(&Path)) -> Place {
    Place { what, run, most: Residue { whole, partial } }
}

const PLACES: &[Place] = &[
    place("a key parsed, compared, printed, dropped", 0, 0, |_| {
        let key = kanal();
        assert!(key == key.clone_key());
        drop(format!("{key:?}"));
    }),
    place("`Keychain::save` (`zbus`, Secret Service)", 0, 0, |_| {
        Keychain::new().save("kanal", kanal().as_raw()).expect("the keychain is unlocked");
    }),
    place("`KeychainItem` loaded (`zbus`, Secret Service)", 0, 0, |_| {
        loads(&KeychainItem::new(Keychain::new(), "kanal"));
    }),
    place("`BearerHeader` on a request, authorized and dropped (`http` 1)", 0, 0, |_| {
        let mut request = Request::get("https://api.getkanal.com/api/v1/stores/1").body(()).unwrap();
        OriginGuard::new().authorize(&mut request, &BearerHeader::new(&kanal())).unwrap();
        drop(request.clone());
    }),
    place("for comparison: `format!(\"Bearer …\")` and `HeaderValue::from_str`", 2, 0, |_| {
        let value = HeaderValue::from_str(&format!("Bearer {KEY}")).unwrap();
        drop(Request::get("https://api.getkanal.com/").header("authorization", value).body(()).unwrap());
    }),
    place("`BearerHeader` sent over plain HTTP to loopback (`ureq` 3.5)", 1, 0, |_| send()),
    place("the same through `BearerLayer` (`hyper` 1, `hyper-util` 0.1)", 1, 0, |_| send_by_hyper()),
    #[cfg(feature = "reqwest")]
    place("the same through `BearerMiddleware` (`reqwest` 0.13)", 1, 0, |_| send_by_reqwest()),
    place("`Profile::classify` of a body that echoes the key (`serde_json` 1)", 1, 0, |_| {
        let mut body = [b' '; 90];
        let parts = [r#"{ "error": "Invalid API key", "key": ""#, KEY, r#"" }"#];
        let mut rest = &mut body[..];
        for part in parts {
            rest.write_all(part.as_bytes()).unwrap();
        }
        assert_eq!(Kanal::PROFILE.classify(401, None, &body).meaning(), Meaning::KeyRefused);
    }),
    place("`Command`, the key among its arguments (`std`)", 1, 1, |_| {
        loads(&source::Command::new("printf").args(["%s", KEY]));
    }),
    place("`Variable`; the environment block itself is not heap", 0, 0, |_| {
        with_variable("SHOP_KEY", || loads(&Variable::new("SHOP_KEY")));
    }),
    place("`Command`, beside another variable with a key, which it hands on (`std`)", 3, 0, |_| {
        with_variable("SHOP_KEY", || loads(&source::Command::new("printenv").args(["SHOP_KEY"])));
    }),
];

fn kanal() -> ApiKey<Kanal> {
    ApiKey::parse(KEY).expect("the planted key is well-formed")
}

/// Sets a variable to the planted key for the time of `work`.
fn with_variable(name: &str, work: impl FnOnce()) {
    // SAFETY: the test is alone in its process, and the threads of the keychain's client read no variables
    // now.
    unsafe { std::env::set_var(name, KEY) };
    work();
    // SAFETY: as above.
    unsafe { std::env::remove_var(name) };
}

fn loads(source: &dyn Source) {
    match source::load(source, Kanal::PROFILE) {
        Ok(Loaded::Found(found)) => assert!(found.key().matches(KEY.as_bytes())),
        other => panic!("no key: {other:?}"),
    }
}

/// Sends one request with the header to a server of our own, and reads its answer.
fn send() {
    let (address, server) = serve_one();
    let origin = Origin::parse(&format!("http://{address}")).unwrap();
    let mut request = Request::get(format!("{origin}/api/v1/stores/1/customers")).body(()).unwrap();
    OriginGuard::for_loopback(origin).unwrap().authorize(&mut request, &BearerHeader::new(&kanal())).unwrap();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().proxy(None).max_redirects(0).http_status_as_error(false).build().into();
    let mut response = agent.run(request).expect("the server answers");
    assert_eq!(response.body_mut().read_to_string().unwrap(), "{}");
    assert!(server.join().expect("the server ends"), "the key was sent");
}

/// The same by the layer and hyper's client, both gone at the end.
fn send_by_hyper() {
    let (address, server) = serve_one();
    let origin = Origin::parse(&format!("http://{address}")).unwrap();
    let uri = format!("{origin}/api/v1/stores/1/customers");
    let layer = BearerLayer::new(KeyHandle::fixed(kanal()), OriginGuard::for_loopback(origin).unwrap());
    runtime().block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::get(uri).body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = layer.layer(client).oneshot(request).await.expect("the server answers");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{}");
    });
    assert!(server.join().expect("the server ends"), "the key was sent");
}

/// The same by the middleware and reqwest's client, both gone at the end.
#[cfg(feature = "reqwest")]
fn send_by_reqwest() {
    use keysheath::client::{BearerMiddleware, guarded_client};

    let (address, server) = serve_one();
    let origin = Origin::parse(&format!("http://{address}")).unwrap();
    let uri = format!("{origin}/api/v1/stores/1/customers");
    let guard = OriginGuard::for_loopback(origin).unwrap();
    runtime().block_on(async {
        let middleware = BearerMiddleware::new(KeyHandle::fixed(kanal()), guard);
        let client = reqwest_middleware::ClientBuilder::new(guarded_client().build().unwrap());
        let response = client.with(middleware).build().get(uri).send().await.expect("the server answers");
        assert_eq!(response.bytes().await.unwrap(), "{}");
    });
    assert!(server.join().expect("the server ends"), "the key was sent");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A server for one request, which keeps nothing on the heap. Says whether the key was in the request.
fn serve_one() -> (SocketAddr, JoinHandle<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its number");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut buffer = [0_u8; 4096];
        let mut length = 0;
        while !buffer[..length].ends_with(b"\r\n\r\n") {
            length += stream.read(&mut buffer[length..]).expect("a request");
        }
        let sent = buffer.windows(KEY.len()).any(|bytes| bytes == KEY.as_bytes());
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            .expect("a client");
        sent
    });
    (address, server)
}

#[test]
fn what_third_party_code_leaves_is_what_security_md_says() {
    let output = with_keychain("what_third_party_code_leaves_is_what_security_md_says", |_| measure());
    if let Some(output) = output {
        for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('|')) {
            println!("{line}");
        }
    }
}

/// Prints the table, and fails where a figure is above SECURITY.md's.
fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");

    // The harness has begun this line with the test's name.
    println!("\n| place | what stays, system allocator | with a wiping allocator |\n|---|---|---|");
    let mut above = Vec::new();
    for Place { what, run, most } in PLACES {
        let system = residue_of(|| run(folder.path()));
        let wiping = residue_when_wiping(|| run(folder.path()));
        println!("| {what} | {system} | {wiping} |");
        if system.whole > most.whole || system.whole + system.partial > most.whole + most.partial {
            above.push(format!("{what}: {system}, and SECURITY.md says {most}"));
        }
        if wiping != NONE {
            above.push(format!("{what}: {wiping} in spite of the wiping allocator"));
        }
    }
    assert!(above.is_empty(), "more was left than SECURITY.md says:\n{}", above.join("\n"));
}
