//! Asking a server over real HTTP: a client that keeps nothing to itself, and raw bytes.
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use keysheath::key::Origin;
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A client without proxies, redirects and kept connections. `root` is the certificate to trust, in PEM.
pub(crate) fn agent(root: Option<&str>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_idle_connections(0)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE));
    let config = match root {
        None => config,
        Some(pem) => {
            let root = ureq::tls::Certificate::from_pem(pem.as_bytes()).unwrap();
            let roots = ureq::tls::RootCerts::new_with_certs(&[root]);
            config.tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build())
        }
    };
    config.build().into()
}

/// Sends a request and reads its answer.
pub(crate) fn send(agent: &ureq::Agent, request: ureq::http::Request<String>) -> Result<Answer, ureq::Error> {
    let mut response = agent.run(request)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.body_mut().read_to_string()?;
    Ok(Answer { status, headers, body })
}

/// A connection to a server, for bytes as they are.
pub(crate) fn connect(origin: &Origin) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", origin.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Writes bytes and reads until the server closes the connection.
pub(crate) fn raw(origin: &Origin, bytes: impl AsRef<[u8]>) -> io::Result<String> {
    let mut stream = connect(origin);
    stream.write_all(bytes.as_ref())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8(answer).unwrap())
}
