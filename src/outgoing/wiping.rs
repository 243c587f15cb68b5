//! A connection that keeps secrets: its buffers are wiped, and ureq never sees what is secret.
//!
//! Without the first, ureq frees its output buffer with the whole header in it. Without the second, it logs every byte
//! that it sends or receives at the level "trace". So it is given a placeholder, and the secret takes its place on the way
//! out; and of an answer's body it is given a stand-in on the way in.

use std::fmt;
use std::mem;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use zeroize::{Zeroize as _, Zeroizing};

use super::intake::Intake;

/// The first placeholder is made of this byte, the second of the next one, and so on.
const FIRST_FILL: u8 = b'!';

/// What a secret body's placeholder is made of.
#[cfg(feature = "oauth")]
const BODY_FILL: u8 = b'~';

/// The values of a request's sensitive headers, in the order of its headers.
type Secrets = Arc<[HeaderValue]>;

/// The last link of a chain of connectors, which makes what the others made keep secrets.
pub(super) struct Wiping {
    secrets: Secrets,
    body: Option<Arc<Zeroizing<Vec<u8>>>>,
    intake: Intake,
}

/// A connection whose output is wiped as soon as it is sent, and whose input when it ends.
pub(super) struct Wiped<T: Transport> {
    inner: T,
    /// What the first output still lacks.
    secrets: Option<Secrets>,
    body: Option<Arc<Zeroizing<Vec<u8>>>>,
    /// How much of the body is sent.
    sent: usize,
    intake: Intake,
}

impl Wiping {
    /// Takes the sensitive values out of a request's headers and leaves a placeholder of the same length for each.
    pub(super) fn take_from(headers: &mut HeaderMap) -> Self {
        let sensitive = headers.values_mut().filter(|value| value.is_sensitive());
        let take = |(value, fill): (&mut HeaderValue, u8)| {
            let placeholder = HeaderValue::from_bytes(&vec![fill; value.len()]).ok()?;
            Some(mem::replace(value, placeholder))
        };
        let secrets = sensitive.zip(FIRST_FILL..).filter_map(take).collect();
        Self { secrets, body: None, intake: Intake::default() }
    }

    /// Takes a body that is secret, and gives a placeholder of the same length for it.
    #[cfg(feature = "oauth")]
    pub(super) fn with_body(mut self, body: Zeroizing<Vec<u8>>) -> (Self, Vec<u8>) {
        let placeholder = vec![BODY_FILL; body.len()];
        self.body = Some(Arc::new(body));
        (self, placeholder)
    }

    /// Where the body of the answer will be.
    pub(super) fn intake(&self) -> Intake {
        self.intake.clone()
    }
}

impl<In: Transport> Connector<In> for Wiping {
    type Out = Wiped<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, made: Option<In>) -> Result<Option<Self::Out>, Error> {
        let (secrets, body, intake) = (Arc::clone(&self.secrets), self.body.clone(), self.intake.clone());
        Ok(made.map(|inner| Wiped { inner, secrets: Some(secrets), body, sent: 0, intake }))
    }
}

impl<T: Transport> Transport for Wiped<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if let Some(secrets) = self.secrets.take() {
            put_in_place(&secrets, &mut self.inner.buffers().output()[..amount])?;
        } else if let Some(body) = &self.body {
            let rest = body.get(self.sent..).unwrap_or_default();
            put_body(rest, &mut self.inner.buffers().output()[..amount])?;
            self.sent += amount;
        }
        let sent = self.inner.transmit_output(amount, timeout);
        self.inner.buffers().output()[..amount].zeroize();
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let there = self.inner.buffers().input().len();
        let more = self.inner.await_input(timeout);
        // Also after an error: what has come is wiped with the rest.
        self.intake.divert(self.inner.buffers(), there);
        more
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<T: Transport> Drop for Wiped<T> {
    fn drop(&mut self) {
        let buffers = self.inner.buffers();
        buffers.output().zeroize();
        // Consumed to the end, the whole of the input buffer is free, and can be wiped.
        let unread = buffers.input().len();
        buffers.input_consume(unread);
        buffers.input_append_buf().zeroize();
    }
}

/// Puts each secret in the place of its placeholder. A head that has not each placeholder exactly once is not sent:
/// the issuer would refuse a placeholder as it refuses a bad key.
fn put_in_place(secrets: &[HeaderValue], head: &mut [u8]) -> Result<(), Error> {
    for (secret, fill) in secrets.iter().zip(FIRST_FILL..) {
        let length = secret.len();
        let is_placeholder = |bytes: &[u8]| bytes.iter().all(|byte| *byte == fill);
        let mut found = head.windows(length.max(1)).enumerate().filter(|(_, bytes)| is_placeholder(bytes));
        let (Some((start, _)), None) = (found.next(), found.next()) else {
            return Err(Error::Other("a request's head is not as it was expected".into()));
        };
        head[start..start + length].copy_from_slice(secret.as_bytes());
    }
    Ok(())
}

/// Puts the next part of a secret body in the place of its placeholder. Anything else than that is not sent.
fn put_body(rest: &[u8], output: &mut [u8]) -> Result<(), Error> {
    #[cfg(feature = "oauth")]
    if let Some(part) = rest.get(..output.len())
        && output.iter().all(|byte| *byte == BODY_FILL)
    {
        output.copy_from_slice(part);
        return Ok(());
    }
    #[cfg(not(feature = "oauth"))]
    let _ = (rest, output);
    Err(Error::Other("a request's body is not as it was expected".into()))
}

impl fmt::Debug for Wiping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiping")
    }
}

impl<T: Transport> fmt::Debug for Wiped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wiped({:?})", self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&'static str]) -> Vec<HeaderValue> {
        texts.iter().map(|text| HeaderValue::from_static(text)).collect()
    }

    #[test]
    fn sensitive_values_are_taken_out_and_put_back_and_the_others_stay() {
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
        let taken = Wiping::take_from(&mut headers).secrets;
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
}
