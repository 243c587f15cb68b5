//! The form of a key, checked without a branch on its bytes.
//!
//! Kanal documents that a key is a 24-character token, Katana documents no format; neither documents an
//! alphabet. What a `Bearer` header can carry bounds both: RFC 6750's `b64token`, which is letters,
//! digits and `-._~+/`, with `=` at the end only. [`KeyFormat`] is that alphabet with a length.
//!
//! Checking folds comparisons of many bytes at a time into one number, so for a well-formed key the time
//! depends on the length alone. The position of the error in a malformed text is not secret.
//!
//! `YOUR_API_KEY_HERE` is well-formed for Katana, but not a key. Loading refuses such texts: see
//! [`KeyFormat::screen`].
//!
//! ```
//! use keysheath::key::{FormatRule, Hint, KeyFormat};
//!
//! let format = KeyFormat::exactly(24);
//! assert!(format.check(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").is_ok());
//!
//! let error = format.check(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\n").unwrap_err();
//! assert_eq!(error.rule(), FormatRule::Length { found: 25 });
//! assert_eq!(error.hint(), Some(Hint::TrailingNewline));
//! ```

pub(crate) mod hint;
mod look_alike;

use std::fmt;
use std::ops::RangeInclusive;

pub use hint::Hint;
pub(crate) use hint::REFERENCE_SCHEMES;

/// The longest key that a format may allow, in bytes: well below the limit of servers for one header.
pub const MAX_KEY_LENGTH: usize = 4096;

/// `b64token` (RFC 6750, section 2.1) between two lengths in bytes.
///
/// ```
/// use keysheath::key::KeyFormat;
/// const KATANA_LIKE: KeyFormat = KeyFormat::between(16, 512);
/// assert!(KATANA_LIKE.check(b"0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyFormat {
    // Small, because every error about a key holds it.
    min: u32,
    max: u32,
    screened: bool,
}

/// The rule that a text breaks, with the position, and never with a byte of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FormatRule {
    /// The text is empty.
    Empty,
    /// The length is outside the bounds.
    Length {
        /// How many bytes there are.
        found: usize,
    },
    /// A byte that a bearer key cannot have.
    Character {
        /// Its position, counted in bytes from 1.
        position: usize,
    },
    /// A `=` that is followed by something else, or preceded by nothing.
    Padding {
        /// Its position, counted in bytes from 1.
        position: usize,
    },
    /// The form is right, but the text looks like a placeholder or similar; the hint says which.
    Placeholder,
}

/// A text is not a well-formed key: the rule, the position, and a hint from the form of the text.
///
/// It holds no byte of the text, so it can be printed and logged.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct FormatError {
    format: KeyFormat,
    rule: FormatRule,
    hint: Option<Hint>,
}

impl fmt::Debug for FormatError {
    /// As [`Display`](fmt::Display): a `main` that ends with the error prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KeyFormat {
    /// Keys of exactly `length` bytes.
    ///
    /// # Panics
    /// If `length` is 0 or above [`MAX_KEY_LENGTH`]; in a `const` that is a compile error.
    #[must_use]
    pub const fn exactly(length: usize) -> Self {
        Self::between(length, length)
    }

    /// Keys of `min` to `max` bytes, both included.
    ///
    /// # Panics
    /// If `min` is 0 or above `max`, or `max` is above [`MAX_KEY_LENGTH`]; in a `const` that is a compile
    /// error.
    #[must_use]
    pub const fn between(min: usize, max: usize) -> Self {
        assert!(min > 0 && min <= max && max <= MAX_KEY_LENGTH, "key length out of bounds");
        #[allow(clippy::cast_possible_truncation, reason = "both are at most MAX_KEY_LENGTH")]
        let (min, max) = (min as u32, max as u32);
        Self { min, max, screened: true }
    }

    /// Turns [`KeyFormat::screen`] off: a text that looks like a placeholder loads as a key. For an issuer
    /// whose keys are chosen by people, and for tests.
    #[must_use]
    pub const fn with_placeholders(self) -> Self {
        Self { screened: false, ..self }
    }

    /// Returns the lengths that a key may have, in bytes.
    #[must_use]
    pub const fn lengths(&self) -> RangeInclusive<usize> {
        self.min as usize..=self.max as usize
    }

    /// Checks a text as it is; nothing is trimmed. For a well-formed key the time depends on its length and
    /// not on its bytes.
    ///
    /// # Errors
    /// [`FormatError`] with the rule, the position and, if the form of the text suggests one, a hint.
    #[inline]
    pub fn check(&self, text: &[u8]) -> Result<(), FormatError> {
        if self.accepts(text) { Ok(()) } else { Err(self.explain(text)) }
    }

    /// Returns the verdict of [`KeyFormat::check`] alone. The time depends only on the length of the text.
    #[must_use]
    #[inline]
    pub fn accepts(&self, text: &[u8]) -> bool {
        self.lengths().contains(&text.len()) && is_b64token(text)
    }

    /// As [`KeyFormat::check`], and refuses a well-formed text that is obviously not a key: a placeholder of
    /// a template (`YOUR_API_KEY_HERE`, `xxxx-xxxx-xxxx-xxxx`, `test-test-test-test`), a masked key, one with
    /// the prefix `kanal_sk_`, the path of a secret, a key that was pasted twice.
    ///
    /// [`source::load`](crate::source::load), every chain and every refresher call it; parsing, comparing and
    /// verifying on a server do not. A random key is refused less than once in 10¹¹ times (16 letters and
    /// digits), 10¹² (24 of them), or 10¹⁷ (a UUID). The time depends on the text.
    ///
    /// # Errors
    /// [`FormatError`], as [`KeyFormat::check`]; with [`FormatRule::Placeholder`] and a hint if the form is
    /// right.
    pub fn screen(&self, text: &[u8]) -> Result<(), FormatError> {
        self.check(text)?;
        let hint = if self.screened { look_alike::hint(text) } else { None };
        let rule = FormatRule::Placeholder;
        hint.map_or(Ok(()), |hint| Err(FormatError { format: *self, rule, hint: Some(hint) }))
    }

    /// The slow path, for texts that are not keys.
    #[cold]
    fn explain(&self, text: &[u8]) -> FormatError {
        let rule = if text.is_empty() {
            FormatRule::Empty
        } else if !self.lengths().contains(&text.len()) {
            FormatRule::Length { found: text.len() }
        } else {
            broken_rule(text)
        };
        FormatError { format: *self, rule, hint: Hint::of(text, |key| self.accepts(key)) }
    }
}

impl FormatError {
    /// Returns the rule that the text breaks.
    #[must_use]
    pub const fn rule(&self) -> FormatRule {
        self.rule
    }

    /// Returns what the form of the text suggests.
    #[must_use]
    pub const fn hint(&self) -> Option<Hint> {
        self.hint
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text is not a well-formed key: ")?;
        match self.rule {
            FormatRule::Placeholder => f.write_str("it has the form of a key but is not one")?,
            FormatRule::Empty => f.write_str("it is empty")?,
            FormatRule::Length { found } => {
                let (min, max) = (self.format.min, self.format.max);
                write!(f, "it has {found} bytes where ")?;
                if min == max {
                    write!(f, "exactly {min} are expected")?;
                } else {
                    write!(f, "{min} to {max} are expected")?;
                }
            }
            FormatRule::Character { position } => {
                write!(
                    f,
                    "byte {position} is not one of the letters, digits and -._~+/= that a key can have"
                )?;
            }
            FormatRule::Padding { position } => {
                write!(f, "byte {position} is a '=', which is allowed only at the end of a key")?;
            }
        }
        match self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => f.write_str("; copy the key again from where it was created"),
        }
    }
}

/// The number of bytes that are checked at once. A loop over them has no exit and no carry, so the compiler
/// turns it into a few vector instructions.
const BLOCK: usize = 16;

/// For each place in a block: 0 if the byte there was right in every block so far, else another number.
type Wrong = [u8; BLOCK];

/// 0 if `byte` is in `low..=high`, else another number: a comparison without a branch.
#[inline]
const fn outside(byte: u8, low: u8, high: u8) -> u8 {
    byte.wrapping_sub(low).saturating_sub(high - low)
}

/// The least of the numbers: 0 if one of them is 0.
#[inline]
fn least<const N: usize>(numbers: [u8; N]) -> u8 {
    numbers.into_iter().fold(u8::MAX, u8::min)
}

/// 0 if `byte` is one of the signs that may precede the padding, else another number.
#[inline]
fn not_token(byte: u8) -> u8 {
    // '-', '.', '/' and the digits are adjacent.
    let not_letter_or_digit = least([outside(byte | 0x20, b'a', b'z'), outside(byte, b'-', b'9')]);
    least([not_letter_or_digit, byte ^ b'_', byte ^ b'~', byte ^ b'+'])
}

/// Checks the first bytes of a block and its neighbour: a `=` must be followed by a `=`.
#[inline]
fn check_with_next(block: &[u8; BLOCK + 1], wrong: &mut Wrong) {
    // Two views of the same bytes, so that the compiler loads each at once.
    let ([bytes @ .., _], [_, next @ ..]) = (block, block);
    for at in 0..BLOCK {
        let not_padding = (bytes[at] ^ b'=') | (next[at] ^ b'=');
        wrong[at] |= least([not_token(bytes[at]), not_padding]);
    }
}

/// Checks the last bytes of a block, which has a neighbour before them: only a `=` may follow a `=`.
#[inline]
fn check_with_previous(block: &[u8; BLOCK + 1], wrong: &mut Wrong) {
    let ([previous @ .., _], [_, bytes @ ..]) = (block, block);
    for at in 0..BLOCK {
        let not_padding = bytes[at] ^ b'=';
        let after_padding = u8::from(previous[at] == b'=').wrapping_neg();
        wrong[at] |= least([not_token(bytes[at]), not_padding]) | (not_padding & after_padding);
    }
}

/// `b64token` by comparisons that are folded into one number: no branch and no table look-up depends on a
/// byte.
#[inline]
fn is_b64token(text: &[u8]) -> bool {
    // With a length that the compiler knows, there is no loop.
    if let Ok(text) = <&[u8; 24]>::try_from(text) { scan(text) } else { is_b64token_of_any_length(text) }
}

#[inline(never)]
fn is_b64token_of_any_length(text: &[u8]) -> bool {
    scan(text)
}

#[inline]
fn scan(text: &[u8]) -> bool {
    let Some(&first) = text.first() else { return false };
    let mut wrong = [0; BLOCK];
    if let Some(end) = text.last_chunk() {
        let mut rest = text;
        while let Some(block) = rest.first_chunk() {
            check_with_next(block, &mut wrong);
            rest = &rest[BLOCK..];
        }
        // This may check some bytes a second time.
        check_with_previous(end, &mut wrong);
    } else {
        // Padding after the end does not change the verdict.
        let mut block = [b'='; BLOCK + 1];
        block[..text.len()].copy_from_slice(text);
        check_with_next(&block, &mut wrong);
    }
    // At least one byte must come before the padding.
    let is_padding_only = u128::from(first == b'=');
    // One comparison of the folded number; `tests/p3_constant_time` checks what the compiler makes of it.
    u128::from_ne_bytes(wrong) | is_padding_only == 0
}

/// The first broken rule of a text that [`is_b64token`] refused, for the message.
fn broken_rule(text: &[u8]) -> FormatRule {
    let mut padding = None;
    for (at, &byte) in text.iter().enumerate() {
        let position = at + 1;
        let token = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        match padding {
            _ if !token && byte != b'=' => return FormatRule::Character { position },
            Some(position) if token => return FormatRule::Padding { position },
            None if byte == b'=' => padding = Some(position),
            _ => {}
        }
    }
    FormatRule::Padding { position: padding.unwrap_or(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as RFC 6750 writes it, byte by byte.
    fn reference(text: &[u8]) -> bool {
        let body = text.iter().rposition(|&byte| byte != b'=').map_or(0, |at| at + 1);
        body > 0 && text[..body].iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
    }

    #[test]
    fn every_byte_at_every_place_gets_the_verdict_of_the_plain_rule() {
        for length in 1..=52 {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    let found = KeyFormat::exactly(length).check(&text);
                    assert_eq!(found.is_ok(), reference(&text), "{length} {place} {byte}");
                }
            }
        }
    }

    #[test]
    fn padding_stands_only_at_the_end_across_every_word_border() {
        for length in 2..=52 {
            for first in 0..length {
                for second in 0..length {
                    let mut text = vec![b'z'; length];
                    text[first..].fill(b'=');
                    text[second] = b'+';
                    let found = KeyFormat::exactly(length).check(&text);
                    assert_eq!(found.is_ok(), reference(&text), "{length} {first} {second}");
                }
            }
        }
    }

    #[test]
    fn the_message_names_the_rule_and_the_place() {
        let format = KeyFormat::between(2, 4);
        let rule = |text: &[u8]| format.check(text).unwrap_err().rule();
        assert_eq!(rule(b""), FormatRule::Empty);
        assert_eq!(rule(b"a"), FormatRule::Length { found: 1 });
        assert_eq!(rule(b"abcde"), FormatRule::Length { found: 5 });
        assert_eq!(rule(b"a\0b"), FormatRule::Character { position: 2 });
        assert_eq!(rule(b"a=b="), FormatRule::Padding { position: 2 });
        assert_eq!(rule(b"==="), FormatRule::Padding { position: 1 });
        assert_eq!(rule(b"a=\xff"), FormatRule::Character { position: 3 });
    }
}
