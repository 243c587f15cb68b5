//! A server that records what reaches it and answers with bytes that a test writes out, right or wrong.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use keysheath::key::Origin;

/// Serves until the test's process ends. Each connection carries one request; its body, if it has one, is
/// read and thrown away.
pub struct Answering {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    /// On a free port of a loopback address; `answer` is given the head of each request.
    pub fn at(ip: &str, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let heads = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up early is one of the things that are tested.
                let _ = serve(&stream, &answer, &heads);
            }
        });
        Self { address, seen }
    }

    pub fn with(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::at("127.0.0.1", move |_| answer.clone())
    }

    /// The heads of the requests that came.
    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub fn origin(&self) -> Origin {
        Origin::parse(&format!("http://{}", self.address)).unwrap()
    }

    pub fn uri(&self) -> String {
        format!("http://{}/api/v1/stores/1/orders", self.address)
    }
}

fn serve(
    mut stream: &TcpStream,
    answer: impl Fn(&str) -> Vec<u8>,
    heads: &Mutex<Vec<String>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while reader.read_line(&mut head)? > 2 {}
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    // A connection that is closed with something unread takes the answer with it.
    io::copy(&mut reader.take(length.unwrap_or(0)), &mut io::sink())?;
    let answer = answer(&head);
    heads.lock().unwrap().push(head);
    stream.write_all(&answer)?;
    stream.flush()
}

/// An answer with a `Content-Length`.
pub fn measured(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An answer in chunks of about a third, with a trailer.
pub fn chunked(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-checked\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    for chunk in body.chunks(body.len() / 3 + 1) {
        answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\nx-checked: yes\r\n\r\n");
    answer
}
