//! Signs in to Katana as an app partner, once, and reads a product with the access token.
//!
//! ```sh
//! cargo run --example oauth_sign_in --features oauth -- CLIENT_ID file:client-secret
//! cargo run --example oauth_sign_in --features oauth -- CLIENT_ID env:CLIENT_SECRET --grant FILE --port 8080
//! ```
//!
//! The second argument is a key reference to the client secret. Register `http://127.0.0.1/callback` as the
//! app's redirect URI, with the port if Katana wants one. The grant is kept in a file (`katana-grant` unless
//! `--grant` names another), so the next start needs no person. `--login URL`, with the paths `/auth` and
//! `/token`, and `--api URL` name servers to use in place of Katana's.

use std::error::Error;
use std::time::Duration;

use http::{Request, Response};
use keysheath::client::{BearerLayer, OriginGuard};
use keysheath::key::{KatanaApp, Origin};
use keysheath::oauth::{Endpoints, KeeperSettings, LoopbackListener, OAuthApp, TokenKeeper};
use keysheath::source::KeyRef;
use keysheath::store::{DocumentStore as _, FileStore};
use tower::{Layer as _, ServiceExt as _, service_fn};

type Failure = Box<dyn Error>;

/// The time that a person has to sign in.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

const USAGE: &str =
    "usage: oauth_sign_in CLIENT_ID SECRET_REFERENCE [--grant FILE] [--port PORT] [--login URL] [--api URL]";

struct Options {
    client_id: String,
    secret: KeyRef,
    grant: String,
    port: u16,
    login: Option<String>,
    api: Option<Origin>,
}

fn main() {
    if let Err(error) = run() {
        eprintln!("oauth_sign_in: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Failure> {
    let options = options()?;
    let app = OAuthApp::katana(&options.client_id, options.secret.source()?)?;
    let app = match &options.login {
        Some(url) => app.with_endpoints(Endpoints {
            authorization: &format!("{url}/auth"),
            token: &format!("{url}/token"),
        })?,
        None => app,
    };
    let store = FileStore::new(&options.grant);
    if store.read()?.is_none() {
        sign_in(&app, &store, options.port)?;
    }
    let keeper = TokenKeeper::start(app, store, KeeperSettings::new())?;
    println!("{}", keeper.status());
    call(&keeper, options.api)
}

fn sign_in(app: &OAuthApp<KatanaApp>, store: &FileStore, port: u16) -> Result<(), Failure> {
    let listener = LoopbackListener::bind(port)?;
    let sign_in = app.sign_in(listener.redirect_uri())?;
    println!("Open this page in a browser on this machine:\n{}", sign_in.url());
    let code = listener.wait(&sign_in, PATIENCE)?;
    app.exchange(sign_in, code)?.save(store)?;
    println!("Signed in.");
    Ok(())
}

/// Sends one request with the token. The client under the layer blocks; a service would use an async one.
fn call(keeper: &TokenKeeper<KatanaApp>, api: Option<Origin>) -> Result<(), Failure> {
    let guard = match api {
        Some(api) => OriginGuard::for_loopback(api)?,
        None => OriginGuard::new(),
    };
    let uri = format!("{}/v1/products?limit=1", guard.origin());
    let config = ureq::Agent::config_builder().proxy(None).max_redirects(0).http_status_as_error(false);
    let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(30))).build().into();
    let client = service_fn(move |request: Request<()>| {
        let answered = agent.run(request).and_then(|response| {
            let (parts, mut body) = response.into_parts();
            Ok(Response::from_parts(parts, body.read_to_string()?))
        });
        async { answered }
    });
    let client = BearerLayer::new(keeper.handle(), guard).layer(client);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    // Not printed: the client's error may show a token that the server sent back.
    let response = runtime
        .block_on(client.oneshot(Request::get(uri).body(())?))
        .map_err(|_| "the request was not answered: check the network, and --api")?;
    println!("{}", response.body().sent().answer());
    Ok(())
}

fn options() -> Result<Options, Failure> {
    let mut words = std::env::args().skip(1);
    let client_id = words.next().ok_or(USAGE)?;
    // The person who starts this program wrote the reference.
    let secret = words.next().ok_or(USAGE)?.parse::<KeyRef>()?.allow_commands();
    let (grant, port, login, api) = ("katana-grant".to_owned(), 0, None, None);
    let mut options = Options { client_id, secret, grant, port, login, api };
    while let Some(name) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match name.as_str() {
            "--grant" => options.grant = value,
            "--port" => options.port = value.parse()?,
            "--login" => options.login = Some(value),
            "--api" => options.api = Some(Origin::parse(&value)?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}
