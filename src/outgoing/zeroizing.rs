//! A connection that keeps secrets: its buffers are wiped, and ureq never sees what is secret.
//!
//! ureq frees its buffers with the whole head in them, and logs every byte that it sends and receives at the
//! level "trace". It is therefore given placeholders of the same length: for each sensitive header, for the
//! body that is sent, and for the body of the answer. The transport replaces them by the secrets on the way
//! out, and keeps the answer's body on the way in. [`Framing`] finds that body.

use std::fmt;
use std::io::ErrorKind;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use zeroize::{Zeroize as _, Zeroizing};

use crate::internal::bytes::WipedBytes;
use crate::internal::threads::Lock;
use crate::internal::time::Clocks;

/// The first placeholder is made of this byte, the second of the next one, and so on.
const FIRST_FILL: u8 = b'!';

/// Replaces each byte of an answer's body for ureq.
const BODY_FILL: u8 = b'0';

/// The input that ureq has not read yet: more than the largest head that it accepts.
const INPUT: usize = 80 * 1024;

/// The output that ureq writes at a time.
const OUTPUT: usize = 16 * 1024;

/// After the deadline, how long to read what has already arrived: in one read, and in total.
const LATE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(900));

/// How much is read of a line of a head or of a chunk's size.
const MAX_LINE: usize = 256;

/// The secrets of the current exchange: one at a time on a connection.
#[derive(Clone, Default)]
pub(super) struct Exchange(Arc<Lock<Secrets>>);

#[derive(Default)]
struct Secrets {
    /// The sensitive values of the request's headers, in their order; taken by the first output.
    headers: Option<Box<[HeaderValue]>>,
    body: WipedBytes,
    body_sent: usize,
    framing: Framing,
    answer: WipedBytes,
    answer_limit: usize,
    /// The length of the answer's body, of which at most `answer_limit` is kept.
    answer_length: usize,
    is_sent: bool,
    /// From when, and for how long, anything may be sent.
    sending: Option<(Clocks, Duration)>,
    /// The deadline, if the transport enforces it and not ureq.
    until: Option<Instant>,
    /// When the deadline was first seen to have passed.
    late: Option<Instant>,
}

/// The outcome of an exchange.
pub(super) struct Finished {
    /// The answer's body, up to the limit.
    pub(super) body: WipedBytes,
    /// The whole length of the answer's body.
    pub(super) length: usize,
    /// Whether any part of the request was sent. A TLS handshake comes before that.
    pub(super) is_sent: bool,
}

/// The last of a chain of connectors: wraps the transport that the others made.
pub(super) struct ZeroizingConnector(pub(super) Exchange);

/// A connection whose output is wiped when it is sent, and whose input when it is taken over.
pub(super) struct ZeroizingTransport<T: Transport> {
    inner: T,
    exchange: Exchange,
    buffers: VisibleBuffers,
}

/// What ureq writes and reads. None of it is secret, except what the head of an answer may echo.
struct VisibleBuffers {
    output: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    consumed: usize,
    is_progressing: bool,
}

impl Exchange {
    /// Begins an exchange: replaces the sensitive values of a request's headers by placeholders of the same
    /// length. Returns a placeholder for the body. Keeps at most `answer_limit` bytes of the answer's body.
    pub(super) fn begin(&self, headers: &mut HeaderMap, body: WipedBytes, answer_limit: usize) -> Vec<u8> {
        let placeholder = vec![BODY_FILL; body.len()];
        *self.0.lock() = Secrets {
            headers: Some(take_from(headers)),
            body,
            framing: Framing::new(),
            answer_limit,
            ..Secrets::default()
        };
        placeholder
    }

    /// Lets the current exchange send only while `sending` allows, and read what has arrived by `until`, even
    /// if it is seen later.
    pub(super) fn keep_answer(&self, sending: (Clocks, Duration), until: Instant) {
        let mut secrets = self.0.lock();
        (secrets.sending, secrets.until) = (Some(sending), Some(until));
    }

    /// Ends an exchange.
    pub(super) fn end(&self) -> Finished {
        let secrets = mem::take(&mut *self.0.lock());
        Finished { body: secrets.answer, length: secrets.answer_length, is_sent: secrets.is_sent }
    }
}

impl Secrets {
    fn may_send(&self) -> bool {
        self.sending.is_none_or(|(begun, span)| !Clocks::now().has_expired(begun, span))
    }

    /// After the deadline: whether what has already arrived may still be read.
    fn may_read_late(&mut self) -> bool {
        self.late.get_or_insert_with(Instant::now).elapsed() < LATE.1
    }

    /// Replaces the placeholders that ureq has written by the secrets.
    fn put_into(&mut self, output: &mut [u8]) -> Result<(), Error> {
        let body = match self.headers.take() {
            None => output,
            Some(headers) => {
                let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
                let (head, body) = output.split_at_mut(end.unwrap_or(output.len()));
                put_in_place(&headers, head)?;
                body
            }
        };
        let end = self.body_sent + body.len();
        let secret = self.body.get(self.body_sent..end).ok_or_else(not_as_expected)?;
        body.copy_from_slice(secret);
        self.body_sent = end;
        Ok(())
    }

    /// Keeps the body in what has arrived, and shows ureq the rest.
    fn show(&mut self, arrived: &[u8], shown: &mut [u8]) {
        for (byte, shown) in arrived.iter().zip(shown) {
            let is_of_body = self.framing.is_of_body(*byte);
            *shown = if is_of_body { BODY_FILL } else { *byte };
            if is_of_body {
                self.answer_length += 1;
                if self.answer.len() < self.answer_limit {
                    self.answer.push(*byte);
                }
            }
        }
    }
}

fn take_from(headers: &mut HeaderMap) -> Box<[HeaderValue]> {
    let sensitive = headers.values_mut().filter(|value| value.is_sensitive());
    let take = |(value, fill): (&mut HeaderValue, u8)| {
        let placeholder = HeaderValue::from_bytes(&vec![fill; value.len()]).ok()?;
        Some(mem::replace(value, placeholder))
    };
    sensitive.zip(FIRST_FILL..).filter_map(take).collect()
}

fn not_as_expected() -> Error {
    Error::Other("a request does not have the expected placeholders".into())
}

/// Replaces each placeholder by its secret. A head that does not have each placeholder exactly once is not
/// sent: the issuer would refuse a placeholder as a bad key.
fn put_in_place(secrets: &[HeaderValue], head: &mut [u8]) -> Result<(), Error> {
    for (secret, fill) in secrets.iter().zip(FIRST_FILL..) {
        let length = secret.len();
        let is_placeholder = |bytes: &[u8]| bytes.iter().all(|byte| *byte == fill);
        let mut found = head.windows(length.max(1)).enumerate().filter(|(_, bytes)| is_placeholder(bytes));
        let (Some((start, _)), None) = (found.next(), found.next()) else {
            return Err(not_as_expected());
        };
        head[start..start + length].copy_from_slice(secret.as_bytes());
    }
    Ok(())
}

impl<In: Transport> Connector<In> for ZeroizingConnector {
    type Out = ZeroizingTransport<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, made: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(made.map(|inner| ZeroizingTransport {
            inner,
            exchange: self.0.clone(),
            buffers: VisibleBuffers::new(),
        }))
    }
}

impl<T: Transport> Transport for ZeroizingTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let written = &mut self.buffers.output[..amount];
        if !self.exchange.0.lock().may_send() {
            return Err(Error::Timeout(timeout.reason));
        }
        let timeout =
            self.exchange.0.lock().until.map_or(timeout, |until| within(timeout, rest_until(until)));
        let mut sent = self.exchange.0.lock().put_into(written);
        for piece in written.chunks(self.inner.buffers().output().len().max(1)) {
            if sent.is_ok() {
                self.inner.buffers().output()[..piece.len()].copy_from_slice(piece);
                sent = self.inner.transmit_output(piece.len(), timeout);
                self.inner.buffers().output()[..piece.len()].zeroize();
                self.exchange.0.lock().is_sent |= sent.is_ok();
            }
        }
        written.zeroize();
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let has_arrived = self.await_inner(timeout)?;
        Ok(self.take_over() > 0 && has_arrived)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<T: Transport> ZeroizingTransport<T> {
    /// Waits until the deadline. If the answer must be kept, also reads what has arrived by then: a process
    /// that was suspended in the middle of an exchange finds the whole answer after its deadline.
    fn await_inner(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let Some(until) = self.exchange.0.lock().until else { return self.inner.maybe_await_input(timeout) };
        loop {
            let rest = rest_until(until);
            if rest.is_zero() {
                break;
            }
            match self.inner.maybe_await_input(within(timeout, rest)) {
                Err(error) if is_timeout(&error) => {}
                answer => return answer,
            }
        }
        if !self.exchange.0.lock().may_read_late() {
            return Err(Error::Timeout(timeout.reason));
        }
        self.inner.maybe_await_input(within(timeout, LATE.0))
    }

    /// Takes over what has arrived, as far as there is room, and returns its length.
    fn take_over(&mut self) -> usize {
        let buffers = self.inner.buffers();
        let arrived = buffers.input();
        let room = self.buffers.input_append_buf();
        let amount = arrived.len().min(room.len());
        self.exchange.0.lock().show(&arrived[..amount], &mut room[..amount]);
        buffers.input_consume(amount);
        // If all input is consumed, the whole buffer is free and can be wiped.
        if buffers.input().is_empty() {
            buffers.input_append_buf()[..amount].zeroize();
        }
        self.buffers.input_appended(amount);
        amount
    }
}

fn rest_until(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// The same timeout, but at most `span` from now.
fn within(timeout: NextTimeout, span: Duration) -> NextTimeout {
    NextTimeout { after: (*timeout.after).min(span).into(), ..timeout }
}

fn is_timeout(error: &Error) -> bool {
    match error {
        Error::Timeout(_) => true,
        Error::Io(error) => {
            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted)
        }
        _ => false,
    }
}

impl<T: Transport> Drop for ZeroizingTransport<T> {
    fn drop(&mut self) {
        let buffers = self.inner.buffers();
        buffers.output().zeroize();
        let unread = buffers.input().len();
        buffers.input_consume(unread);
        buffers.input_append_buf().zeroize();
    }
}

impl VisibleBuffers {
    fn new() -> Self {
        Self { output: vec![0; OUTPUT], input: vec![0; INPUT], filled: 0, consumed: 0, is_progressing: false }
    }
}

impl Buffers for VisibleBuffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.consumed > 0 {
            self.input.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
        }
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.is_progressing = amount > 0;
        self.consumed += amount;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.input[self.filled..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.consumed < self.filled && self.is_progressing
    }
}

impl Drop for VisibleBuffers {
    fn drop(&mut self) {
        // A head may echo the key.
        self.input.zeroize();
    }
}

impl fmt::Debug for ZeroizingConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ZeroizingConnector")
    }
}

impl<T: Transport> fmt::Debug for ZeroizingTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZeroizingTransport({:?})", self.inner)
    }
}

/// Finds the body in the bytes of one answer (RFC 9112, sections 6 and 7).
#[derive(Debug, Default)]
struct Framing {
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
    /// Everything that follows.
    Body,
    Size,
    Chunk {
        left: u64,
    },
    AfterChunk,
    Trailer,
}

impl Framing {
    fn new() -> Self {
        let line = WipedBytes::with_capacity(MAX_LINE);
        Self { is_first_line: true, line, ..Self::default() }
    }

    /// Takes the next byte, and returns whether it belongs to the body.
    fn is_of_body(&mut self, byte: u8) -> bool {
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
                // Not a chunk, and ureq says so. What follows is still hidden from it.
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
#[path = "../../tests/units/outgoing/zeroizing.rs"]
mod tests;
