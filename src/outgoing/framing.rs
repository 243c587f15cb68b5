//! Finds the body of an answer in the bytes of a connection (RFC 9112, sections 6 and 7).

use zeroize::Zeroizing;

use crate::internal::bytes::WipedBytes;

/// The longest line of a head or of a chunk's size that is looked at; of a longer one only so much is.
const MAX_LINE: usize = 256;

/// Follows the bytes of one answer.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// Wiped, because a server may echo a key in a line of the head.
    line: WipedBytes,
    is_interim: bool,
    is_chunked: bool,
    is_first_line: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// All that follows.
    Body,
    Size,
    Chunk {
        left: u64,
    },
    AfterChunk,
    Trailer,
}

impl Framing {
    pub(super) fn new() -> Self {
        let line = WipedBytes::with_capacity(MAX_LINE);
        Self { is_first_line: true, line, ..Self::default() }
    }

    /// Takes a byte, and says whether it is one of the body.
    pub(super) fn is_of_body(&mut self, byte: u8) -> bool {
        match self.state {
            State::Body => return true,
            State::Chunk { left } => {
                self.state = if left > 1 { State::Chunk { left: left - 1 } } else { State::AfterChunk };
                return true;
            }
            State::Trailer => {}
            State::Head | State::Size | State::AfterChunk if byte == b'\n' => {
                self.end_line();
                self.line.truncate(0);
            }
            State::Head | State::Size | State::AfterChunk => {
                if self.line.len() < MAX_LINE {
                    self.line.push(byte);
                }
            }
        }
        false
    }

    fn end_line(&mut self) {
        let line = self.line.trim_ascii();
        self.state = match self.state {
            State::Head if self.is_first_line => {
                self.is_first_line = false;
                // HTTP/1.1 100 Continue
                self.is_interim =
                    line.split(|byte| *byte == b' ').nth(1).is_some_and(|s| s.starts_with(b"1"));
                State::Head
            }
            State::Head if !line.is_empty() => {
                self.is_chunked |= is_chunked(line);
                State::Head
            }
            State::Head if self.is_interim => {
                self.is_first_line = true;
                State::Head
            }
            State::Head if self.is_chunked => State::Size,
            State::Head => State::Body,
            State::Size => match chunk_size(line) {
                Some(0) => State::Trailer,
                Some(left) => State::Chunk { left },
                // It is no chunk, and ureq will say so. What follows is hidden from it all the same.
                None => State::Body,
            },
            State::AfterChunk => State::Size,
            state => state,
        };
    }
}

fn is_chunked(line: &[u8]) -> bool {
    let line = Zeroizing::new(line.to_ascii_lowercase());
    line.starts_with(b"transfer-encoding:") && line.windows(7).any(|word| word == b"chunked")
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: &str) -> String {
        let mut framing = Framing::new();
        let body = answer.bytes().filter(|byte| framing.is_of_body(*byte)).collect();
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn the_body_is_what_follows_the_head() {
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"), "abc");
        assert_eq!(body("HTTP/1.1 200 OK\ncontent-length: 3\n\nabc\r\n\r\n"), "abc\r\n\r\n");
        assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n"), "");
        assert_eq!(body("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\nabc"), "abc");
        assert_eq!(body(&format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\nabc", "y".repeat(9000))), "abc");
    }

    #[test]
    fn of_a_chunked_body_the_sizes_and_the_trailer_are_no_part() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(
            body(&format!("{head}3\r\nabc\r\n0A;x=y\r\n0123\r\n5678\r\n0\r\nx-t: z\r\n\r\n")),
            "abc0123\r\n5678"
        );
        assert_eq!(body(&format!("{head}0\r\n\r\n")), "");
        assert_eq!(body(&format!("{head}zz\r\nabc")), "abc", "what is no chunk is hidden");
    }
}
