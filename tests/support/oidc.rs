//! A real authorization server, and a person with a browser.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keysheath::key::{KatanaApp, Origin};
use keysheath::oauth::{Endpoints, LoopbackListener, OAuthApp, SignIn, Tokens};
use keysheath::source::{SecretFile, Source};
use keysheath::store::DocumentStore;

use super::http::{Answer, agent, send};
pub(crate) use super::waiting::{PATIENCE, eventually};

/// The app's client secret at the server.
pub(crate) const CLIENT_SECRET: &str = "Qv7Yc4Nw9Rk2Xz8Jh5Tm3Gp6-Wd1Bf0Ls";

/// The server; dropped, it ends.
pub(crate) struct Oidc {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

fn installed() -> PathBuf {
    let tools = std::env::var_os("KEYSHEATH_TOOLS").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/keysheath");
    let folder = tools.unwrap_or_else(home).join("oidc-provider-9.13.3");
    assert!(folder.join("installed").is_file(), "oidc-provider is not installed: run scripts/setup");
    folder
}

impl Oidc {
    /// With these options, JSON without the secret, such as `"accessTtl": 2`.
    pub(crate) fn start(options: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/oidc/server.mjs");
        let comma = if options.is_empty() { "" } else { "," };
        let mut child = Command::new("node")
            .arg(script)
            .arg(installed())
            .arg(format!("{{\"secret\":\"{CLIENT_SECRET}\"{comma}{options}}}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node is installed: run scripts/setup");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the server says its port: run scripts/setup");
        Self { child, port, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::parse(&format!("http://127.0.0.1:{}", self.port)).unwrap()
    }

    /// The app, with its secret in a file.
    pub(crate) fn app(&self) -> OAuthApp<KatanaApp> {
        let path = self.folder.path().join("client-secret");
        std::fs::write(&path, CLIENT_SECRET).unwrap();
        app_at(self.port, &path)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let request =
            ureq::http::Request::get(format!("{}{path}", self.origin())).body(String::new()).unwrap();
        send(&agent(None), request).unwrap()
    }

    /// How often something has happened: refreshed, exchanged, revoked, refused, accepted, rejected.
    pub(crate) fn count(&self, what: &str) -> u64 {
        self.get("/test/counts").json()[what].as_u64().unwrap()
    }

    /// Takes the app's access away, as a person does at the issuer.
    pub(crate) fn revoke(&self, access_token: &str) {
        assert_eq!(self.get(&format!("/test/revoke?{access_token}")).status, 200);
    }

    /// Forgets one access token before its time.
    pub(crate) fn forget(&self, access_token: &str) {
        assert_eq!(self.get(&format!("/test/forget?{access_token}")).status, 200);
    }

    /// A person signs in and agrees.
    pub(crate) fn sign_in(&self) -> Tokens<KatanaApp> {
        // On a busy machine the server takes its time.
        let app = self.app().with_deadline(PATIENCE);
        let listener = LoopbackListener::bind(0).unwrap();
        let sign_in = app.sign_in(listener.redirect_uri()).unwrap();
        let url = sign_in.url().to_owned();
        let person = std::thread::spawn(move || {
            let back = Browser::default().sign_in(&url, Decision::Agree);
            visit(&back)
        });
        let code = listener.wait(&sign_in, PATIENCE).unwrap();
        assert_eq!(person.join().unwrap().status, 200);
        app.exchange(sign_in, code).unwrap()
    }

    /// A person signs in, and the tokens are saved.
    pub(crate) fn grant_in(&self, store: &dyn DocumentStore) {
        self.sign_in().save(store).unwrap();
    }

    /// Stops it for good, so that nothing listens there.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Oidc {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The app of a server at this port.
pub(crate) fn app_at(port: u16, secret: &Path) -> OAuthApp<KatanaApp> {
    app_of(SecretFile::new(secret), &format!("http://127.0.0.1:{port}"))
}

/// The app with this client secret, at the server with this origin.
pub(crate) fn app_of(secret: impl Source + 'static, origin: &str) -> OAuthApp<KatanaApp> {
    at_server(OAuthApp::katana("shop-sync", secret).unwrap(), origin)
}

/// The app at the server with this origin.
pub(crate) fn at_server(app: OAuthApp<KatanaApp>, origin: &str) -> OAuthApp<KatanaApp> {
    let (authorization, token) = (format!("{origin}/auth"), format!("{origin}/token"));
    app.with_endpoints(Endpoints { authorization: &authorization, token: &token }).unwrap()
}

/// The state of a sign-in.
pub(crate) fn state_of(sign_in: &SignIn) -> &str {
    sign_in.url().split("state=").nth(1).unwrap().split('&').next().unwrap()
}

/// What a person does at the page that asks whether the app is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Agree,
    Deny,
}

/// A browser with cookies, in the hands of a person.
#[derive(Default)]
pub(crate) struct Browser {
    cookies: Vec<(String, String)>,
}

impl Browser {
    /// Opens the URL and does what the pages ask, up to the address that the server sends the browser back
    /// to.
    pub(crate) fn sign_in(&mut self, url: &str, decision: Decision) -> String {
        let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
        let absolute = |target: &str| {
            if target.starts_with('/') { format!("{origin}{target}") } else { target.to_owned() }
        };
        let mut answer = self.ask("GET", url, "");
        for _ in 0..20 {
            if let Some(location) = answer.header("location").map(absolute) {
                if !location.starts_with(&origin) {
                    return location;
                }
                answer = self.ask("GET", &location, "");
                continue;
            }
            assert_eq!(answer.status, 200, "{}", answer.body);
            let action = between(&answer.body, "action=\"", "\"").expect("a form");
            let form = match between(&answer.body, "name=\"prompt\" value=\"", "\"") {
                Some("login") => "prompt=login&login=somebody&password=x",
                Some("consent") => "prompt=consent",
                other => panic!("an unknown page: {other:?}"),
            };
            let action = absolute(action);
            answer = if form == "prompt=consent" && decision == Decision::Deny {
                self.ask("GET", &format!("{action}/abort"), "")
            } else {
                self.ask("POST", &action, form)
            };
        }
        panic!("the server goes round in circles");
    }

    fn ask(&mut self, method: &str, url: &str, form: &str) -> Answer {
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("cookie", cookies.join("; "))
            .header("content-type", "application/x-www-form-urlencoded");
        let answer = match method {
            "GET" => {
                let mut response = agent(None).run(request.body(()).unwrap()).unwrap();
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                Answer { status, headers, body: response.body_mut().read_to_string().unwrap() }
            }
            _ => send(&agent(None), request.body(form.to_owned()).unwrap()).unwrap(),
        };
        for cookie in answer.headers.get_all("set-cookie") {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(there, _)| there != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }
}

/// Opens one address, such as the one that the server sends back to.
pub(crate) fn visit(url: &str) -> Answer {
    send(&agent(None), ureq::http::Request::get(url).body(String::new()).unwrap()).unwrap()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}
