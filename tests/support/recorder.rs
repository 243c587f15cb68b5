//! A server on 127.0.0.1 that records what reaches it, and answers as it is told.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Serves until the test's process ends. Each connection carries one request.
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// Plain HTTP; `answer` is a status line's rest and headers, such as `200 OK` or `302 Found\r\nlocation: …`.
    pub fn plain(answer: &str) -> Self {
        Self::start(answer, Ok)
    }

    /// Over whatever `accept` makes of a connection, such as TLS.
    pub fn start<S: Read + Write>(
        answer: &str,
        accept: impl Fn(TcpStream) -> io::Result<S> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (heads, answer) = (Arc::clone(&seen), answer.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                // A connection that breaks is a connection that carried nothing.
                let _ = accept(stream).and_then(|stream| serve(stream, &answer, &heads));
            }
        });
        Self { address, seen }
    }

    /// The heads of the requests that came, in lower case but for the values.
    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: impl Read + Write, answer: &str, heads: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(&mut stream);
    while reader.read_line(&mut head)? > 2 {}
    heads.lock().unwrap().push(head);
    write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    stream.flush()
}
