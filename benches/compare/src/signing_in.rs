//! A token keeper with a token, from a server of this program.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use keysheath::key::KatanaApp;
use keysheath::oauth::{Endpoints, KeeperSettings, OAuthApp, TokenKeeper};
use keysheath::source::SecretFile;
use keysheath::store::MemoryStore;

/// As long as a short JSON Web Token.
pub(super) const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiI0MiIsImF1ZCI6ImthdGFuYSJ9.\
    Zk3Jt8Qw1Vx5Ys9Hc2Nb6Lm4Rp7Td0Gf";

/// A keeper that has a token for a day.
pub(super) fn keeper() -> TokenKeeper<KatanaApp> {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let origin = format!("http://{}", server.local_addr().expect("an address"));
    thread::spawn(move || server.incoming().flatten().for_each(answer));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = folder.path().join("client-secret");
    std::fs::write(&secret, "Qv7Yc4Nw9Rk2Xz8Jh5Tm3Gp6").expect("a file");
    let (authorization, token) = (format!("{origin}/authorize"), format!("{origin}/token"));
    let endpoints = Endpoints { authorization: &authorization, token: &token };
    let app = OAuthApp::new(endpoints, "compare", SecretFile::new(&secret)).expect("an app");

    let sign_in = app.sign_in("http://127.0.0.1:1/").expect("randomness");
    let (_, state) = sign_in.url().split_once("state=").expect("a state");
    let state = state.split('&').next().unwrap_or_default();
    let code = sign_in.answer(&format!("code=compare&state={state}")).expect("the own state");
    let store = MemoryStore::new();
    app.exchange(sign_in, code).expect("a token").save(&store).expect("in memory");
    TokenKeeper::start(app, store, KeeperSettings::new()).expect("a grant")
}

/// Reads a request and answers it with the tokens.
fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(&stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let tokens = format!(
        "{{\"access_token\":\"{TOKEN}\",\"token_type\":\"Bearer\",\"expires_in\":86400,\
         \"refresh_token\":\"Rf4Kd8Mz2\"}}"
    );
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    // A client that has left needs no answer.
    let _ = write!(stream, "{head}content-length: {}\r\n\r\n{tokens}", tokens.len());
}
