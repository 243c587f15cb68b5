//! A connection that keeps secrets: its buffers are wiped, and ureq never sees what is secret.
//!
//! Without the first, ureq frees its buffers with the whole head in them. Without the second, it logs every
//! byte that it sends and receives at the level "trace". So it is given placeholders of the same length: for
//! each sensitive header, for the body that is sent, and for the body of the answer. The secrets take their
//! place on the way out, and the answer's body is laid aside on the way in.

use std::fmt;
use std::io::ErrorKind;
use std::mem;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use zeroize::Zeroize as _;

use super::framing::Framing;
use crate::internal::bytes::WipedBytes;
#[cfg(feature = "oauth")]
use crate::internal::clocks::Clocks;
use crate::internal::lock::Lock;

/// The first placeholder is made of this byte, the second of the next one, and so on.
const FIRST_FILL: u8 = b'!';

/// What ureq sees of the body of an answer.
const BODY_FILL: u8 = b'0';

/// What one connection takes in before ureq has read it: more than the largest head that ureq reads.
const INPUT: usize = 80 * 1024;

/// What ureq writes at once.
const OUTPUT: usize = 16 * 1024;

/// How long what has come already is waited for once the deadline has passed: in one read, and in all.
const LATE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(900));

/// What is secret in the exchange that is under way: one at a time on a connection.
#[derive(Clone, Default)]
pub(super) struct Exchange(Arc<Lock<Secrets>>);

#[derive(Default)]
struct Secrets {
    /// The values of the request's sensitive headers, in the order of its headers; taken by the first output.
    headers: Option<Box<[HeaderValue]>>,
    body: WipedBytes,
    body_sent: usize,
    framing: Framing,
    answer: WipedBytes,
    answer_limit: usize,
    /// How long the answer's body is, also where it is longer than what is kept.
    answer_length: usize,
    is_sent: bool,
    /// Since when, and for how long something may be sent.
    #[cfg(feature = "oauth")]
    sending: Option<(Clocks, Duration)>,
    /// When the deadline is, where this connection keeps it and not ureq.
    until: Option<Instant>,
    /// When the deadline was first seen to have passed.
    late: Option<Instant>,
}

/// What has come of an exchange.
pub(super) struct Finished {
    /// The answer's body, as far as it is kept.
    pub(super) body: WipedBytes,
    /// How long it was.
    pub(super) length: usize,
    /// Whether anything of the request has gone out: TLS shakes hands before that.
    pub(super) is_sent: bool,
}

/// The last link of a chain of connectors, which makes what the others made keep secrets.
pub(super) struct ZeroizingConnector(pub(super) Exchange);

/// A connection whose output is wiped as soon as it is sent, and whose input as soon as it is taken over.
pub(super) struct ZeroizingTransport<T: Transport> {
    inner: T,
    exchange: Exchange,
    buffers: VisibleBuffers,
}

/// What ureq writes and reads: nothing of it is secret but what a head may echo.
struct VisibleBuffers {
    output: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    consumed: usize,
    is_progressing: bool,
}

impl Exchange {
    /// Begins an exchange: takes the sensitive values out of a request's headers and leaves a placeholder of
    /// the same length for each. Of the answer's body at most `answer_limit` bytes are kept. Gives a
    /// placeholder for the body.
    pub(super) fn begin(&self, headers: &mut HeaderMap, body: WipedBytes, answer_limit: usize) -> Vec<u8> {
        let placeholder = vec![BODY_FILL; body.len()];
        *self.lock() = Secrets {
            headers: Some(take_from(headers)),
            body,
            framing: Framing::new(),
            answer_limit,
            ..Secrets::default()
        };
        placeholder
    }

    /// Sends in the exchange that is begun only as long as `sending` allows, and reads what has come by
    /// `until`, however late that is looked at.
    #[cfg(feature = "oauth")]
    pub(super) fn keep_answer(&self, sending: (Clocks, Duration), until: Instant) {
        let mut secrets = self.lock();
        (secrets.sending, secrets.until) = (Some(sending), Some(until));
    }

    /// Ends an exchange.
    pub(super) fn end(&self) -> Finished {
        let secrets = mem::take(&mut *self.lock());
        Finished { body: secrets.answer, length: secrets.answer_length, is_sent: secrets.is_sent }
    }

    fn lock(&self) -> MutexGuard<'_, Secrets> {
        self.0.lock()
    }
}

impl Secrets {
    #[cfg(feature = "oauth")]
    fn may_send(&self) -> bool {
        self.sending.is_none_or(|(begun, span)| !Clocks::now().has_expired(begun, span))
    }

    #[cfg(not(feature = "oauth"))]
    const fn may_send(&self) -> bool {
        let _ = self;
        true
    }

    /// Whether what has come already may still be read, once the deadline has passed.
    fn may_read_late(&mut self) -> bool {
        self.late.get_or_insert_with(Instant::now).elapsed() < LATE.1
    }

    /// Puts the secrets in the place of what ureq has written.
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

    /// Takes what has come, and gives what ureq may see of it.
    fn show(&mut self, come: &[u8], shown: &mut [u8]) {
        for (byte, shown) in come.iter().zip(shown) {
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
    Error::Other("a request is not as it was expected".into())
}

/// Puts each secret in the place of its placeholder. A head that has not each placeholder exactly once is not
/// sent: the issuer would refuse a placeholder as it refuses a bad key.
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
        if !self.exchange.lock().may_send() {
            return Err(Error::Timeout(timeout.reason));
        }
        let timeout = self.exchange.lock().until.map_or(timeout, |until| within(timeout, rest_until(until)));
        let placed = self.exchange.lock().put_into(written);
        let mut sent = placed;
        for piece in written.chunks(self.inner.buffers().output().len().max(1)) {
            if sent.is_ok() {
                self.inner.buffers().output()[..piece.len()].copy_from_slice(piece);
                sent = self.inner.transmit_output(piece.len(), timeout);
                self.inner.buffers().output()[..piece.len()].zeroize();
                self.exchange.lock().is_sent |= sent.is_ok();
            }
        }
        written.zeroize();
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let has_come = self.await_inner(timeout)?;
        Ok(self.take_over() > 0 && has_come)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<T: Transport> ZeroizingTransport<T> {
    /// Waits until the deadline. If the answer is to be kept, takes what has arrived by then: a process
    /// that was suspended in the middle of an exchange finds the whole answer there, and the deadline over.
    fn await_inner(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let Some(until) = self.exchange.lock().until else { return self.inner.maybe_await_input(timeout) };
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
        if !self.exchange.lock().may_read_late() {
            return Err(Error::Timeout(timeout.reason));
        }
        self.inner.maybe_await_input(within(timeout, LATE.0))
    }

    /// Takes over what has come, as far as there is room, and says how much that is.
    fn take_over(&mut self) -> usize {
        let buffers = self.inner.buffers();
        let come = buffers.input();
        let room = self.buffers.input_append_buf();
        let amount = come.len().min(room.len());
        self.exchange.lock().show(&come[..amount], &mut room[..amount]);
        buffers.input_consume(amount);
        // Consumed to the end, the whole of the buffer is free, and can be wiped.
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

/// The same, and no later than `span` from now.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&'static str]) -> Vec<HeaderValue> {
        texts.iter().map(|text| HeaderValue::from_static(text)).collect()
    }

    #[test]
    fn sensitive_values_are_swapped_out_and_back_others_stay() {
        let mut headers = HeaderMap::new();
        for (name, value, sensitive) in [
            ("authorization", "Bearer abc", true),
            ("accept", "application/json", false),
            ("x", "token", true),
        ] {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(sensitive);
            headers.insert(name, value);
        }
        let taken = take_from(&mut headers);
        assert_eq!(headers["accept"], "application/json");
        let line = |(name, value): (&http::HeaderName, &HeaderValue)| {
            format!("{name}: {}\r\n", value.to_str().unwrap())
        };
        let mut head = headers.iter().map(line).collect::<String>().into_bytes();
        assert!(!head.windows(3).any(|bytes| bytes == b"abc" || bytes == b"tok"));
        put_in_place(&taken, &mut head).unwrap();
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("authorization: Bearer abc\r\n") && head.contains("x: token\r\n"), "{head}");
    }

    #[test]
    fn a_head_without_the_placeholder_or_with_two_is_not_sent() {
        for head in ["authorization: !!!\r\n", "a: !!!!\r\nb: !!!!\r\n", "a: !!!!!\r\n", ""] {
            let mut bytes = head.as_bytes().to_vec();
            assert!(put_in_place(&secrets(&["abcd"]), &mut bytes).is_err(), "{head}");
            assert_eq!(bytes, head.as_bytes());
        }
        let mut empty = b"a: \r\n".to_vec();
        assert!(put_in_place(&secrets(&[""]), &mut empty).is_err());
        assert!(put_in_place(&secrets(&[]), &mut empty).is_ok());
    }

    #[test]
    fn a_body_replaces_its_placeholder_in_writes_of_any_size() {
        for at_once in [1, 3, 7, 100] {
            let exchange = Exchange::default();
            let shown = exchange.begin(&mut HeaderMap::new(), WipedBytes::copy_of(b"secret body"), 100);
            assert_eq!(shown, b"00000000000");
            let mut head = b"POST / HTTP/1.1\r\n\r\n".to_vec();
            exchange.lock().put_into(&mut head).unwrap();
            assert_eq!(head, b"POST / HTTP/1.1\r\n\r\n");
            let mut sent = shown;
            for piece in sent.chunks_mut(at_once) {
                exchange.lock().put_into(piece).unwrap();
            }
            assert_eq!(sent, b"secret body");
            assert!(exchange.lock().put_into(&mut [0]).is_err(), "more than the body is not sent");
        }
    }

    #[test]
    fn ureq_sees_only_the_response_head_and_the_rest_is_bounded() {
        let exchange = Exchange::default();
        exchange.begin(&mut HeaderMap::new(), WipedBytes::default(), 4);
        let come = b"HTTP/1.1 200 OK\r\n\r\nsecret";
        let mut shown = vec![0; come.len()];
        exchange.lock().show(come, &mut shown);
        assert_eq!(shown, b"HTTP/1.1 200 OK\r\n\r\n000000");
        let ended = exchange.end();
        assert_eq!((&ended.body[..], ended.length, ended.is_sent), (&b"secr"[..], 6, false));
    }
}
