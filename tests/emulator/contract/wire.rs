//! Bytes on a connection, so that nothing between the suite and the server corrects what is sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use keysheath::emulator::Emulator;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::suite::{Answer, Ask, Keys, Server};

pub(crate) struct Wire {
    address: (String, u16),
    tls: Option<Arc<ClientConfig>>,
    keys: Keys,
}

impl Wire {
    pub(crate) fn plain(emulator: &Emulator) -> Self {
        let origin = emulator.origin();
        let address = (origin.host().to_owned(), origin.port());
        Self { address, tls: None, keys: Keys::of(emulator.registry()) }
    }

    pub(crate) fn tls(emulator: &Emulator) -> Self {
        let mut roots = RootCertStore::empty();
        let der = emulator.certificate_der().expect("it was started with TLS").to_vec();
        roots.add(CertificateDer::from(der)).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { tls: Some(Arc::new(config)), ..Self::plain(emulator) }
    }

    fn exchange(&self, mut stream: impl Read + Write, ask: &Ask) -> Answer {
        let (host, port) = &self.address;
        let mut text =
            format!("{} {} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n", ask.method, ask.path)
                .into_bytes();
        for (name, value) in &ask.headers {
            text.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        text.extend(format!("content-length: {}\r\n\r\n", ask.body.len()).bytes());
        text.extend(&ask.body);
        stream.write_all(&text).unwrap();
        let mut received = Vec::new();
        // A server that closes at once may cut the connection under what it has not read.
        let _ = stream.read_to_end(&mut received);
        read_answer(&received)
    }
}

/// Takes an answer apart: the head, and a body of the length that the head says.
pub(crate) fn read_answer(received: &[u8]) -> Answer {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(received[..end].to_vec()).expect("ASCII");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').expect("a header"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse().unwrap());
    let body = received[end + 4..].to_vec();
    assert_eq!(length.unwrap_or(0), body.len(), "{head}");
    Answer { status: status.parse().unwrap(), headers, body }
}

impl Server for Wire {
    fn ask(&self, ask: &Ask) -> Answer {
        let (host, port) = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        match &self.tls {
            None => self.exchange(stream, ask),
            Some(config) => {
                let name = ServerName::try_from(host.clone()).unwrap();
                let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
                self.exchange(StreamOwned::new(connection, stream), ask)
            }
        }
    }

    fn keys(&self) -> &Keys {
        &self.keys
    }
}
