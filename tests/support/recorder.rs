//! A server on 127.0.0.1 that records what reaches it, and answers as it is instructed.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Serves until the test's process ends. Each connection carries one request, and has a thread of its own.
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// What reached the server.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub head: String,
    pub body: String,
}

/// Both ways of a connection: plain TCP, or TLS over it.
pub trait Connection: Read + Write {}

impl<S: Read + Write> Connection for S {}

impl Recorder {
    /// Plain HTTP; `answer` is a status line's rest and headers, such as `200 OK` or `302 Found\r\nlocation:
    /// …`.
    pub fn plain(answer: &str) -> Self {
        Self::start(answer, Ok)
    }

    /// Over whatever `accept` makes of a connection, such as TLS.
    pub fn start<S: Read + Write>(
        answer: &str,
        accept: impl Fn(TcpStream) -> io::Result<S> + Send + Sync + 'static,
    ) -> Self {
        let answer = answer.to_owned();
        Self::serve(accept, move |_, stream| write_answer(stream, &answer, ""))
    }

    /// Plain HTTP; `answer` gives a status and a JSON body for each request.
    pub fn json(answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::serve(Ok, move |request, stream| {
            let (status, body) = answer(request);
            write_answer(stream, &format!("{status} Test\r\ncontent-type: application/json"), &body)
        })
    }

    /// Plain HTTP; `answer` writes what it likes, and the connection is closed after it.
    pub fn raw(
        answer: impl Fn(&Request, &mut dyn Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Ok, answer)
    }

    /// Over whatever `accept` makes of a connection; `answer` writes what it likes.
    pub fn serve<S: Read + Write>(
        accept: impl Fn(TcpStream) -> io::Result<S> + Send + Sync + 'static,
        answer: impl Fn(&Request, &mut dyn Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let requests = Arc::clone(&seen);
        let serve = Arc::new(move |stream: TcpStream| -> io::Result<()> {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut stream = accept(stream)?;
            let request = read(&mut stream)?;
            requests.lock().unwrap().push(request.clone());
            answer(&request, &mut stream)
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = Arc::clone(&serve);
                // A connection that breaks is a connection that carried nothing.
                thread::spawn(move || drop(serve(stream)));
            }
        });
        Self { address, seen }
    }

    /// The requests that came.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The heads of the requests that came.
    pub fn heads(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.head).collect()
    }
}

impl Request {
    /// The first line without its version, such as `GET /v1/products?limit=1`.
    pub fn line(&self) -> &str {
        self.head.split(" HTTP/1.1").next().unwrap()
    }

    /// The values of a header; the name is given in lower case.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let value = |line| Some(line).and_then(|line: &str| line.split_once(": "));
        let same = |(found, _): &(&str, &str)| found.eq_ignore_ascii_case(name);
        self.head.lines().filter_map(value).filter(same).map(|(_, value)| value).collect()
    }
}

/// Writes a whole answer that ends the connection; `head` is a status line's rest and headers.
pub fn write_answer(stream: &mut dyn Connection, head: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")?;
    stream.flush()
}

fn read(stream: impl Read) -> io::Result<Request> {
    let mut request = Request::default();
    let mut reader = BufReader::new(stream);
    while reader.read_line(&mut request.head)? > 2 {}
    let length = request.header("content-length").first().map_or(0, |length| length.parse().unwrap());
    reader.take(length).read_to_string(&mut request.body)?;
    Ok(request)
}
