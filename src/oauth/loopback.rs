//! Waiting on this machine for the answer of a sign-in, as a command-line tool does (RFC 8252, section 7.3).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::sign_in::MAX_QUERY;
use super::{AuthorizationCode, SignIn, SignInError};

use crate::internal::bytes::WipedBytes;

/// The path that the answer comes to.
const PATH: &str = "/callback";

/// The longest head of a request that is read, in bytes; the query of an answer is the most of it.
const MAX_HEAD: usize = MAX_QUERY + 16 * 1024;

/// How long one connection may take to send its request. A browser may open one that it does not use.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long until the next look whether somebody has connected.
const PAUSE: Duration = Duration::from_millis(20);

/// Listens on 127.0.0.1 for the answer of one sign-in.
///
/// It takes one answer and then ends. What is not a `GET` of its path, such as a browser's look for an icon,
/// is answered with 404 and does not count; an answer with another `state` than that of the sign-in is
/// refused and ends it, because it is forged or of a sign-in that is over. What it reads is bounded, 32 KiB
/// and 5 s for each request, and it serves one at a time.
///
/// ```
/// use keysheath::oauth::LoopbackListener;
/// let listener = LoopbackListener::bind(0)?;
/// assert!(listener.redirect_uri().starts_with("http://127.0.0.1:"));
/// # Ok::<(), keysheath::oauth::SignInError>(())
/// ```
#[derive(Debug)]
pub struct LoopbackListener {
    listener: TcpListener,
    redirect_uri: String,
}

impl LoopbackListener {
    /// Listens on this port, and on a free one for 0. Register `http://127.0.0.1/callback` with the server,
    /// with the port if the server wants one.
    ///
    /// # Errors
    /// [`SignInError::Listener`] when the port is taken, or may not be listened on.
    pub fn bind(port: u16) -> Result<Self, SignInError> {
        let failed = |error: io::Error| SignInError::Listener(error.kind());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, redirect_uri: format!("http://127.0.0.1:{port}{PATH}") })
    }

    /// Where it listens, for [`OAuthApp::sign_in`](super::OAuthApp::sign_in).
    #[must_use]
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Blocks until the answer of the sign-in has come, and shows the person a page that says how it went.
    ///
    /// # Errors
    /// As [`SignIn::answer`], and [`SignInError::Deadline`] when none comes in time.
    pub fn wait(self, sign_in: &SignIn, timeout: Duration) -> Result<AuthorizationCode, SignInError> {
        let start = Instant::now();
        loop {
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                return Err(SignInError::Deadline);
            }
            match self.listener.accept() {
                Ok((stream, _)) => {
                    // A connection that breaks is a connection that carried nothing.
                    if let Ok(Some(answer)) = serve(stream, sign_in, rest.min(PATIENCE)) {
                        return answer;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE.min(rest)),
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => return Err(SignInError::Listener(error.kind())),
            }
        }
    }
}

type Answer = Result<AuthorizationCode, SignInError>;

/// Reads one request and answers it. None for what is no answer of a sign-in.
fn serve(mut stream: TcpStream, sign_in: &SignIn, patience: Duration) -> io::Result<Option<Answer>> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(patience))?;
    let Some(head) = read_head(&mut stream, patience)? else { return Ok(None) };
    // "GET /callback?code=… HTTP/1.1"
    let target = std::str::from_utf8(&head).ok().and_then(|head| {
        let mut words = head.lines().next()?.split(' ');
        if words.next() == Some("GET") { words.next() } else { None }
    });
    let query = target.and_then(|target| match target.split_once('?') {
        Some((path, query)) => (path == PATH).then_some(query),
        None => (target == PATH).then_some(""),
    });
    let answer = query.map(|query| sign_in.answer(query));
    let (status, page) = page(answer.as_ref());
    // Whether or not the browser takes the page, the answer has come.
    let _ = write_page(&mut stream, status, page);
    Ok(answer)
}

/// None where the head does not end in time or within the bound.
fn read_head(stream: &mut TcpStream, patience: Duration) -> io::Result<Option<WipedBytes>> {
    let start = Instant::now();
    // It may hold a code, and never grows.
    let mut head = WipedBytes::zeroed(MAX_HEAD);
    let mut length = 0;
    while length < head.len() {
        let rest = patience.saturating_sub(start.elapsed());
        if rest.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(rest))?;
        match stream.read(&mut head[length..]) {
            Ok(0) => return Ok(None),
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            head.truncate(length);
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Texts of our own alone: nothing of the request is shown.
const fn page(answer: Option<&Answer>) -> (&'static str, &'static str) {
    match answer {
        None => ("404 Not Found", "There is nothing here."),
        Some(Ok(_)) => {
            ("200 OK", "You have signed in. Close this page, and go back to the program that asked you to.")
        }
        Some(Err(SignInError::Denied)) => {
            ("200 OK", "You did not let the program in. Nothing was changed. You may close this page.")
        }
        Some(Err(SignInError::WrongState)) => (
            "400 Bad Request",
            "This answer belongs to another sign-in, so it was not used. Start again from the program.",
        ),
        Some(Err(_)) => (
            "400 Bad Request",
            "The sign-in did not work. The program that asked you to says what to do next.",
        ),
    }
}

fn write_page(stream: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sign-in</title><p>{text}</p></html>\n"
    );
    // The code is in this page's address: no other page is to learn it.
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: \
         no-store\r\nreferrer-policy: no-referrer\r\ncontent-security-policy: default-src 'none'\r\nconnection: \
         close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()?;
    stream.shutdown(Shutdown::Write)
}
