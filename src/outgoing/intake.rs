//! The body of an answer, taken out of ureq's sight on the way in: ureq logs every byte that it reads, and a body may have
//! tokens in it. What ureq reads is a stand-in of the same length and framing.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::unversioned::transport::Buffers;
use zeroize::{Zeroize as _, Zeroizing};

use super::MAX_ANSWER;

/// What the stand-in is made of.
const STAND_IN: u8 = b'~';

/// How much of a line of a head or of a chunk's size is looked at, in bytes; those that matter are shorter.
const MAX_LINE: usize = 256;

/// The header that says how a body is framed.
const CODING: &[u8] = b"transfer-encoding:";

/// Where the body goes; clones share it.
#[derive(Clone, Default)]
pub(super) struct Intake(Arc<Mutex<Reader>>);

struct Reader {
    state: State,
    /// The line that is being read. A server may give a key back in it, so it is wiped, and never grows.
    line: Zeroizing<Vec<u8>>,
    status: Option<u16>,
    is_chunked: bool,
    body: Zeroizing<Vec<u8>>,
}

/// Where in the answer the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// To the end of the body, as ureq counts it.
    Body,
    Chunk {
        left: u64,
    },
    ChunkEnd,
    ChunkSize,
    /// What follows the last chunk.
    Trailer,
}

impl Default for Reader {
    fn default() -> Self {
        // It never grows, because growing would leave copies behind.
        let body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        let line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
        Self { state: State::Head, line, status: None, is_chunked: false, body }
    }
}

impl Intake {
    /// Puts a stand-in in the place of what has come since there were `there` bytes in the input.
    pub(super) fn divert(&self, buffers: &mut dyn Buffers, there: usize) {
        let mut input = Zeroizing::new(buffers.input().to_vec());
        if input.len() <= there {
            return;
        }
        self.lock().replace(&mut input[there..]);
        // Consumed to the end, the whole of the buffer is free, and can be wiped and filled again.
        buffers.input_consume(input.len());
        let free = buffers.input_append_buf();
        free.zeroize();
        // It has held as much a moment ago.
        let length = input.len().min(free.len());
        free[..length].copy_from_slice(&input[..length]);
        buffers.input_appended(length);
    }

    /// The body, up to the bound.
    pub(super) fn take(&self) -> Zeroizing<Vec<u8>> {
        mem::take(&mut self.lock().body)
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn replace(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            match self.state {
                State::Head => self.read_head(*byte),
                State::Body => self.keep(byte),
                State::Chunk { left } => {
                    self.keep(byte);
                    self.state = if left > 1 { State::Chunk { left: left - 1 } } else { State::ChunkEnd };
                }
                State::ChunkEnd if *byte == b'\n' => self.state = State::ChunkSize,
                State::ChunkEnd | State::Trailer => {}
                State::ChunkSize => self.read_size(*byte),
            }
        }
    }

    fn keep(&mut self, byte: &mut u8) {
        if self.body.len() < MAX_ANSWER {
            self.body.push(*byte);
        }
        *byte = STAND_IN;
    }

    fn read_head(&mut self, byte: u8) {
        if !self.ends_line(byte) {
            return;
        }
        let line = self.line.as_slice();
        match self.status {
            // "HTTP/1.1 200 OK"
            None => {
                let status = line.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
                self.status = Some(status.and_then(|digits| digits.parse().ok()).unwrap_or(0));
            }
            // An interim answer; the head of the final one follows.
            Some(100..200) if line.is_empty() => (self.status, self.is_chunked) = (None, false),
            Some(_) if line.is_empty() => {
                self.state = if self.is_chunked { State::ChunkSize } else { State::Body };
            }
            Some(_) => {
                let is = |text: &[u8], wanted: &[u8]| text.eq_ignore_ascii_case(wanted);
                let names = line.split_at_checked(CODING.len()).filter(|(name, _)| is(name, CODING));
                self.is_chunked |=
                    names.is_some_and(|(_, value)| value.windows(7).any(|word| is(word, b"chunked")));
            }
        }
        self.line.clear();
    }

    fn read_size(&mut self, byte: u8) {
        if !self.ends_line(byte) {
            return;
        }
        let digits = self.line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.state = match size {
            Some(0) => State::Trailer,
            Some(left) => State::Chunk { left },
            // ureq refuses it too; until then, nothing of it is shown.
            None => State::Body,
        };
        self.line.clear();
    }

    /// Whether this byte ends a line, which is then there without its end.
    fn ends_line(&mut self, byte: u8) -> bool {
        if byte != b'\n' {
            if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
            return false;
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ureq sees of an answer that comes in pieces of this length, and what is kept.
    fn diverted(answer: &str, piece: usize) -> (String, String) {
        let mut reader = Reader::default();
        let mut seen = answer.as_bytes().to_vec();
        seen.chunks_mut(piece).for_each(|bytes| reader.replace(bytes));
        (String::from_utf8(seen).unwrap(), String::from_utf8(reader.body.to_vec()).unwrap())
    }

    #[test]
    fn a_body_is_kept_and_ureq_sees_a_stand_in_of_the_same_framing() {
        for piece in [1, 2, 3, 7, 4096] {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n";
            let plain = diverted(&format!("{head}secret"), piece);
            assert_eq!(plain, (format!("{head}~~~~~~"), "secret".to_owned()));

            let head = "HTTP/1.1 200 OK\nTransfer-Encoding:  gzip, Chunked\n\n";
            let answer = format!("{head}3;x=y\r\nsec\r\n03\r\nret\r\n0\r\nt: u\r\n\r\n");
            let seen = format!("{head}3;x=y\r\n~~~\r\n03\r\n~~~\r\n0\r\nt: u\r\n\r\n");
            assert_eq!(diverted(&answer, piece), (seen, "secret".to_owned()));

            let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\n\r\n";
            let after = diverted(&format!("{interim}secret"), piece);
            assert_eq!(after, (format!("{interim}~~~~~~"), "secret".to_owned()));
        }
    }

    #[test]
    fn a_chunk_whose_size_is_none_shows_nothing_that_follows() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (seen, _) = diverted(&format!("{head}zz\r\nsecret"), 5);
        assert!(!seen.contains("secret"), "{seen}");
    }

    #[test]
    fn no_more_than_the_bound_is_kept_and_its_block_never_grows() {
        let mut reader = Reader::default();
        let block = reader.body.as_ptr();
        let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        bytes.resize(bytes.len() + MAX_ANSWER * 2, b'x');
        reader.replace(&mut bytes);
        assert_eq!((reader.body.len(), reader.body.as_ptr()), (MAX_ANSWER, block));
    }
}
