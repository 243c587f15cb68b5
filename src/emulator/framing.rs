//! Where the requests on a connection begin and end (RFC 9112, section 6).

/// The longest line of which all is looked at. The lines that matter are shorter.
const MAX_LINE: usize = 256;

/// Follows the bytes that arrive on a connection, and finds a request that gives the length of its body in two ways.
///
/// hyper takes such a request by its `Transfer-Encoding` and drops the `Content-Length` unseen. A server behind a proxy
/// that does the opposite would take the body for a request of its own, so the emulator refuses it, as RFC 9112 allows.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    line: Vec<u8>,
    head: Head,
    requests: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Body {
        left: u64,
    },
    /// The line with a chunk's size.
    Size,
    Chunk {
        left: u64,
    },
    /// The line's end after a chunk.
    ChunkEnd,
    Trailer,
    /// Nothing that follows is looked at: the connection ends here, or is no HTTP.
    Over,
}

/// What the lines of a head have said so far.
#[derive(Clone, Copy, Debug)]
struct Head {
    has_begun: bool,
    is_measured: bool,
    /// 0 where there is no `Content-Length`; `None` where it is no number.
    length: Option<u64>,
    is_encoded: bool,
}

impl Framing {
    /// Takes the next bytes. Gives the number, counted from 1, of a request that gives its length twice.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while let [first, more @ ..] = rest {
            match self.state {
                State::Over => return None,
                State::Body { left } | State::Chunk { left } => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - skipped as u64;
                    self.state = match self.state {
                        State::Body { .. } if left == 0 => State::Head,
                        State::Body { .. } => State::Body { left },
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::Chunk { left },
                    };
                    rest = &rest[skipped..];
                }
                _ if *first == b'\n' => {
                    rest = more;
                    if self.line.last() == Some(&b'\r') {
                        self.line.pop();
                    }
                    let line = std::mem::take(&mut self.line);
                    if self.end_line(&line) {
                        self.state = State::Over;
                        return Some(self.requests);
                    }
                }
                _ => {
                    rest = more;
                    if self.line.len() < MAX_LINE {
                        self.line.push(*first);
                    }
                }
            }
        }
        None
    }

    /// Reads a line. `true` where it ends the head of a request that gives its length twice.
    fn end_line(&mut self, line: &[u8]) -> bool {
        self.state = match self.state {
            // Empty lines before a request are let through.
            State::Head if line.is_empty() && !self.head.has_begun => State::Head,
            State::Head if line.is_empty() => {
                self.requests += 1;
                match std::mem::take(&mut self.head) {
                    Head { is_measured: true, is_encoded: true, .. } => return true,
                    Head { is_encoded: true, .. } => State::Size,
                    Head { length: Some(0), .. } => State::Head,
                    Head { length: Some(left), .. } => State::Body { left },
                    Head { length: None, .. } => State::Over,
                }
            }
            State::Head => {
                self.head.read(line);
                State::Head
            }
            State::Size => match size(line) {
                Some(0) => State::Trailer,
                Some(left) => State::Chunk { left },
                None => State::Over,
            },
            State::ChunkEnd if line.is_empty() => State::Size,
            State::Trailer if line.is_empty() => State::Head,
            State::Trailer => State::Trailer,
            _ => State::Over,
        };
        false
    }
}

impl Default for Head {
    fn default() -> Self {
        Self { has_begun: false, is_measured: false, length: Some(0), is_encoded: false }
    }
}

impl Head {
    fn read(&mut self, line: &[u8]) {
        if !std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.is_measured = true;
            self.length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
        }
        self.is_encoded |= name.eq_ignore_ascii_case(b"transfer-encoding");
    }
}

/// The size of a chunk; extensions may follow it.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the bytes whole, and in pieces of every length.
    fn found(bytes: &str) -> Option<usize> {
        let whole = Framing::default().follow(bytes.as_bytes());
        for length in 1..bytes.len() {
            let mut framing = Framing::default();
            let mut pieces = bytes.as_bytes().chunks(length);
            assert_eq!(pieces.find_map(|piece| framing.follow(piece)), whole, "{length}");
        }
        whole
    }

    #[test]
    fn a_length_given_twice_is_found_in_whichever_request_it_is() {
        let twice =
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: x\r\ncontent-length: 3\r\n\r\n0\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nContent-Length:  5 \r\n\r\na\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\na\r\n\r\n\r\nA\r\n0123456789\r\n0\r\nt: 1\r\n\r\n";
        let empty = "GET / HTTP/1.1\r\nhost: content-length\r\n\r\n";
        let none = "PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(found(twice), Some(1));
        assert_eq!(found(&twice.replace("\r\n", "\n")), Some(1));
        for before in [sized, chunked, empty, none] {
            assert_eq!(found(before), None, "{before}");
            assert_eq!(found(&format!("{before}{twice}")), Some(2), "{before}");
            assert_eq!(found(&format!("{before}\r\n{before}{twice}")), Some(3), "{before}");
        }
        assert_eq!(
            found(&format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{twice}", twice.len())),
            None
        );
    }

    #[test]
    fn what_is_no_http_is_given_up_and_takes_no_memory() {
        let mut framing = Framing::default();
        for _ in 0..1000 {
            assert_eq!(framing.follow(&[b'x'; 1000]), None);
        }
        assert!(framing.line.len() <= MAX_LINE);
        for bytes in
            ["POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "P\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
        {
            let mut framing = Framing::default();
            assert_eq!((framing.follow(bytes.as_bytes()), framing.state), (None, State::Over), "{bytes}");
        }
    }
}
