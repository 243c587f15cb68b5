//! `BearerMiddleware` on a real reqwest client: the same rules as the tower layer's, past redirects and
//! proxies.

use std::error::Error as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use crate::support::answering::{Answering, chunked, measured};
use crate::support::{Child, KEY};
use http::Extensions;
use keysheath::client::{BearerMiddleware, GuardError, OriginGuard, Sent, guarded_client};
use keysheath::failure::Meaning;
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Kanal, Origin};
use reqwest::{Client, Method, Request, Response, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};

const REFUSED: &[u8] = br#"{ "error": "Invalid API key" }"#;

fn handle() -> KeyHandle<Kanal> {
    KeyHandle::fixed(ApiKey::parse(KEY).unwrap())
}

fn middleware(server: &Answering, handle: &KeyHandle<Kanal>) -> BearerMiddleware<Kanal> {
    BearerMiddleware::new(handle.clone(), OriginGuard::for_loopback(server.origin()).unwrap())
}

fn client(server: &Answering, handle: &KeyHandle<Kanal>) -> ClientWithMiddleware {
    let client = guarded_client().timeout(Duration::from_secs(20)).build().unwrap();
    ClientBuilder::new(client).with(middleware(server, handle)).build()
}

async fn ask(server: &Answering, handle: &KeyHandle<Kanal>) -> Response {
    client(server, handle).get(server.uri()).send().await.unwrap()
}

fn meaning(response: &Response) -> Meaning {
    response.extensions().get::<Sent>().expect("each response says what was sent").answer().meaning()
}

fn keys(server: &Answering) -> usize {
    server.heads().iter().map(|head| head.matches(KEY).count()).sum()
}

fn redirect(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 x\r\nlocation: {location}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").into()
}

fn guard_error(error: &Error) -> Option<&GuardError> {
    match error {
        Error::Middleware(error) => error.downcast_ref(),
        Error::Reqwest(_) => None,
    }
}

#[tokio::test]
async fn a_request_that_must_not_carry_the_key_is_not_sent() {
    let (issuer, other) =
        (Answering::with(measured("200 OK", b"")), Answering::with(measured("200 OK", b"")));
    let (host, handle) = (issuer.address, handle());
    let client = client(&issuer, &handle);
    let elsewhere = GuardError::OtherOrigin { expected: issuer.origin() };
    for (url, expected) in [
        (other.uri(), &elsewhere),
        (format!("https://{host}/"), &elsewhere),
        (format!("http://localhost:{}/", host.port()), &elsewhere),
        (format!("http://{host}/?key={KEY}"), &GuardError::KeyInUri),
        (format!("http://{host}/%38{}", &KEY[1..]), &GuardError::KeyInUri),
        (
            format!("http://{host}/{}", "x".repeat(70_000)),
            &GuardError::Unreadable { expected: issuer.origin() },
        ),
    ] {
        let error = client.get(&url).send().await.unwrap_err();
        assert_eq!(guard_error(&error), Some(expected), "{url:.99}");
        assert!(error.source().is_none() && !format!("{error} {error:?}").contains("8fK2"), "{error}");
    }
    // A builder turns user information into a header; a request that is built by hand keeps it in its URL.
    let with_user: Url = format!("http://user@{host}/").parse().unwrap();
    let error = client.get(with_user.clone()).send().await.unwrap_err();
    assert_eq!(guard_error(&error), Some(&GuardError::AlreadyAuthorized));
    let error = client.execute(Request::new(Method::GET, with_user)).await.unwrap_err();
    assert_eq!(guard_error(&error), Some(&GuardError::UserInfo));
    let error = client.get(issuer.uri()).header("host", "evil.example").send().await.unwrap_err();
    assert_eq!(guard_error(&error), Some(&GuardError::OtherHost));
    assert!(issuer.heads().is_empty() && other.heads().is_empty());

    assert_eq!(meaning(&client.get(issuer.uri()).send().await.unwrap()), Meaning::Accepted);
    assert_eq!((issuer.heads().len(), keys(&issuer)), (1, 1));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_carries_no_key() {
    let other = Answering::at("127.0.0.2", |_| measured("200 OK", b""));
    let location = format!("http://{}/", other.address);
    let issuer = Answering::at("127.0.0.1", move |_| redirect(&location));
    let client = client(&issuer, &handle());
    let response = client.get(issuer.uri()).send().await.unwrap();
    assert_eq!(response.status(), 302);
    let next = response.headers()["location"].to_str().unwrap();
    let error = client.get(next).send().await.unwrap_err();
    assert!(matches!(guard_error(&error), Some(GuardError::OtherOrigin { .. })));
    assert_eq!((issuer.heads().len(), keys(&issuer), other.heads().len()), (1, 1, 0));
}

/// The control: why `guarded_client` is needed.
#[tokio::test]
async fn a_client_that_follows_redirects_bypasses_the_guard() {
    let other = Answering::at("127.0.0.2", |_| measured("200 OK", b""));
    let location = format!("http://{}/", other.address);
    let issuer = Answering::at("127.0.0.1", move |_| redirect(&location));
    let follows = Client::builder().no_proxy().build().unwrap();
    let client = ClientBuilder::new(follows).with(middleware(&issuer, &handle())).build();
    client.get(issuer.uri()).send().await.unwrap();
    assert_eq!(other.heads().len(), 1);
}

#[test]
fn a_proxy_in_the_environment_sees_nothing() {
    let issuer = Answering::with(measured("200 OK", b""));
    let proxy = Answering::with(measured("200 OK", b""));
    let url = format!("http://{}", proxy.address);
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    let child = names.iter().fold(Child::new("a_proxy_in_the_environment_sees_nothing"), |child, name| {
        // The child has other servers than the parent, so it gets their addresses.
        child.var(name, &url)
    });
    let child = child.without("NO_PROXY").without("no_proxy").without("REQUEST_METHOD");
    let child = child.var("ISSUER", issuer.address.to_string());
    let output = child.run(|| {
        let address = std::env::var("ISSUER").unwrap();
        let origin = Origin::parse(&format!("http://{address}")).unwrap();
        let middleware =
            || BearerMiddleware::new(handle(), OriginGuard::for_loopback(origin.clone()).unwrap());
        let ask = async |client: Client, path: &str| {
            let client = ClientBuilder::new(client).with(middleware()).build();
            client.get(format!("{origin}/{path}")).send().await.unwrap()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            ask(guarded_client().build().unwrap(), "guarded").await;
            // The control: by default, reqwest uses the proxy of the environment.
            ask(Client::new(), "unguarded").await;
        });
    });
    if output.is_some() {
        let (direct, by_proxy) = (issuer.heads(), proxy.heads());
        assert!(direct.len() == 1 && direct[0].starts_with("GET /guarded "), "{direct:?}");
        assert!(by_proxy.len() == 1 && by_proxy[0].contains("/unguarded "), "{by_proxy:?}");
    }
}

/// Sends each request twice, the second time elsewhere if so configured.
struct Twice(Option<Url>);

#[async_trait::async_trait]
impl Middleware for Twice {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let first = request.try_clone().expect("it has no body");
        next.clone().run(first, extensions).await?;
        if let Some(elsewhere) = &self.0 {
            *request.url_mut() = elsewhere.clone();
        }
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn each_attempt_of_a_repeated_request_is_guarded() {
    let (issuer, other) =
        (Answering::with(measured("200 OK", b"")), Answering::with(measured("200 OK", b"")));
    for elsewhere in [None, Some(other.uri().parse().unwrap())] {
        let refused = elsewhere.is_some();
        let client = ClientBuilder::new(guarded_client().build().unwrap())
            .with(Twice(elsewhere))
            .with(middleware(&issuer, &handle()))
            .build();
        let answer = client.get(issuer.uri()).send().await;
        assert_eq!(answer.is_err_and(|error| guard_error(&error).is_some()), refused);
    }
    assert_eq!((issuer.heads().len(), keys(&issuer), other.heads().len()), (3, 3, 0));
}

#[tokio::test]
async fn only_the_issuers_own_401_reports_the_generation_sent() {
    for (answer, expected) in [
        (measured("401 Unauthorized", REFUSED), Meaning::KeyRefused),
        (chunked("401 Unauthorized", REFUSED), Meaning::KeyRefused),
        (measured("401 Unauthorized", b"<html>Please sign in</html>"), Meaning::Inconclusive),
        (measured("401 Unauthorized", &REFUSED[1..]), Meaning::Inconclusive),
        (measured("404 Not Found", br#"{"error":"Store not found or paused"}"#), Meaning::StoreNotFound),
        (measured("429 Too Many", REFUSED), Meaning::RateLimited),
        (measured("500 Broken", REFUSED), Meaning::Inconclusive),
        (measured("200 OK", REFUSED), Meaning::Accepted),
    ] {
        let (server, handle) = (Answering::with(answer), handle());
        let response = ask(&server, &handle).await;
        assert_eq!(meaning(&response), expected, "{}", response.status());
        let generation = response.extensions().get::<Sent>().unwrap().generation();
        let refused = expected == Meaning::KeyRefused;
        assert_eq!(handle.refused(), refused.then_some(generation), "{}", response.status());
        assert_eq!(response.url().as_str(), server.uri(), "the response keeps its URL");
        assert_eq!(response.remote_addr(), Some(server.address), "and where it came from");
    }
}

#[tokio::test]
async fn a_body_comes_back_whole() {
    for status in ["200 OK", "401 Unauthorized", "404 Not Found"] {
        for size in [0, 1, 64 * 1024, 64 * 1024 + 1, 100 * 1024, 10_000_000] {
            let body: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
            let server = Answering::with(measured(status, &body));
            let response = ask(&server, &handle()).await;
            assert_eq!(response.content_length(), Some(size as u64));
            assert!(response.bytes().await.unwrap() == body, "{status}: {size} bytes by their length");
            let server = Answering::with(chunked(status, &body));
            let came = ask(&server, &handle()).await.bytes().await.unwrap();
            assert!(came == body, "{status}: {size} bytes in chunks");
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_gives_its_data_and_then_its_error() {
    for status in ["200 OK", "401 Unauthorized"] {
        for size in [10, 100 * 1024] {
            let answer = measured(status, &vec![b'x'; size + 100]);
            let server = Answering::with(&answer[..answer.len() - 100]);
            let mut response = ask(&server, &handle()).await;
            let mut came = 0;
            let error = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => came += chunk.len(),
                    Ok(None) => panic!("{status}: {size} bytes ended as if they were whole"),
                    Err(error) => break error,
                }
            };
            assert!(error.is_body() || error.is_decode() || error.is_request(), "{error:?}");
            assert!(came >= size - 8192.min(size) && came <= size, "{status}: {came} of {size}");
        }
    }
}

#[tokio::test]
async fn a_missing_body_ends_at_the_clients_own_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (hold, until) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = BufReader::new(&stream);
        while head.read_line(&mut String::new()).unwrap() > 2 {}
        stream.write_all(b"HTTP/1.1 401 x\r\ncontent-length: 100\r\n\r\n{").unwrap();
        // The connection stays open until the test has its answer.
        let _ = until.recv();
    });
    let handle = handle();
    let guard = OriginGuard::for_loopback(origin.clone()).unwrap();
    let client = guarded_client().timeout(Duration::from_millis(300)).build().unwrap();
    let client = ClientBuilder::new(client).with(BearerMiddleware::new(handle.clone(), guard)).build();
    let response = client.get(format!("{origin}/")).send().await.unwrap();
    assert_eq!(meaning(&response), Meaning::Inconclusive);
    assert!(response.bytes().await.unwrap_err().is_timeout());
    assert_eq!(handle.refused(), None);
    drop(hold);
    server.join().unwrap();
}
