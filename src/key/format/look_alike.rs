//! Well-formed texts that are not keys: placeholders, masked keys, another form of key, a path.
//!
//! [`KeyFormat::screen`](super::KeyFormat::screen) refuses them. It refuses a random key this rarely:
//!
//! | random key | refused once in |
//! |---|---|
//! | 24 letters and digits | more than 10¹² |
//! | 16 letters and digits | more than 10¹¹ |
//! | 24 characters of base64url | more than 10¹² |
//! | a UUID | more than 10¹⁷ |
//!
//! A test computes an upper bound for each from the rules below.

use super::{Hint, MAX_KEY_LENGTH};
use crate::internal::bytes::WipedBytes;

/// The prefix of Kanal's keys that other pages show.
const KANAL_SK: &[u8] = b"kanal_sk_";

/// Directories of secrets: the text is a path and not the content of the file.
const FOLDERS: [&[u8]; 4] = [b"/run/secrets/", b"/var/run/secrets/", b"/run/credentials/", b"/etc/secrets/"];

/// The number of letters and digits that must repeat what came before for a text to count as a repetition.
const LEAST_REPEATED: usize = 8;

/// The number of adjacent equal marks that make a text count as masked, and the part of the text that they
/// must be.
const LEAST_MASKED: usize = 8;
const LEAST_PART: usize = 3;

/// The characters that mask keys and that a key can have.
const MARKS: &[u8] = b".xX-_~+";

/// The longest text, in letters and digits, that is searched for words.
const MOST_LETTERS: usize = 128;

/// The longest text of which more than the start is checked: the longest key, twice. The time to find
/// repetitions grows with the square of the length.
const MOST: usize = 2 * MAX_KEY_LENGTH + 1;

/// What templates, manuals and tests write in the place of a key, apart from `abcd`, `1234`, `aaa` and the
/// like.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "abc", "access", "account", "actual", "admin", "any", "api", "app", "auth", "bar", "baz", "bearer",
    "change", "changed", "character", "characters", "chars", "client", "code", "copy", "credential",
    "credentials", "default", "demo", "dev", "development", "do", "dont", "dummy", "empty", "enter",
    "example", "examples", "fake", "fill", "fixme", "foo", "for", "from", "generate", "generated", "goes",
    "hello", "here", "hidden", "in", "insert", "invalid", "is", "it", "kanal", "katana", "key", "keys",
    "live", "local", "localhost", "long", "lorem", "ipsum", "masked", "me", "missing", "mock", "mrp", "my",
    "new", "nil", "no", "none", "not", "null", "of", "omitted", "only", "our", "own", "pass", "passwd",
    "password", "paste", "placeholder", "please", "prod", "production", "put", "qux", "random", "real",
    "redacted", "removed", "replace", "safe", "sample", "sandbox", "secret", "secrets", "secure", "set",
    "shop", "sk", "some", "something", "stage", "staging", "store", "string", "super", "tbd", "temp",
    "template", "test", "tester", "testing", "tests", "text", "the", "this", "tmp", "to", "todo", "token",
    "tokens", "undefined", "unset", "use", "user", "valid", "value", "very", "whatever", "with", "world",
    "xyz", "your", "yours",
];

/// Sequences that people type; four or more characters of one count as a word.
const ROWS: [&str; 9] = [
    "abcdefghijklmnopqrstuvwxyz",
    "zyxwvutsrqponmlkjihgfedcba",
    "0123456789012345678901234567890",
    "9876543210987654321098765432109",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "a1b2c3d4e5f6g7h8i9j0k1l2m3n4",
    "1a2b3c4d5e6f7g8h9i0j",
];

/// The shortest part of a row that counts, and the shortest run of one character.
const LEAST_OF_ROW: usize = 4;
const LEAST_RUN: usize = 3;

/// Returns why a text of any form is not a key.
pub(super) fn hint(text: &[u8]) -> Option<Hint> {
    if text.starts_with(KANAL_SK) {
        return Some(Hint::KanalSkPrefix);
    }
    if FOLDERS.iter().any(|folder| text.starts_with(folder)) {
        return Some(Hint::Path);
    }
    if text.len() > MOST {
        return None;
    }
    if let Some(half) = half(text).map(letters)
        && !half.is_empty()
        && !is_made_up(&half, 1)
    {
        return Some(Hint::Doubled);
    }
    let letters = letters(text);
    if is_made_up(&letters, LEAST_REPEATED) {
        return Some(Hint::Placeholder);
    }
    is_masked(text, letters.len()).then_some(Hint::Masked)
}

/// The half of a text that consists of the same half twice, adjacent or with one blank or sign between them.
fn half(text: &[u8]) -> Option<&[u8]> {
    let (first, second) = (&text[..text.len() / 2], &text[text.len().div_ceil(2)..]);
    let between = &text[first.len()..text.len() - second.len()];
    let is_split = matches!(between, [] | [b' ' | b',' | b';' | b'|']);
    (first.len() >= LEAST_REPEATED && first == second && is_split).then_some(first)
}

/// The letters and digits of a text, in lower case.
fn letters(text: &[u8]) -> WipedBytes {
    let mut letters = WipedBytes::with_capacity(text.len());
    letters.extend(text.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase));
    letters
}

fn is_masked(text: &[u8], letters: usize) -> bool {
    let least = LEAST_MASKED.max(text.len() / LEAST_PART);
    let runs = text.chunk_by(|left, right| left == right);
    let is_run_of_marks = |run: &[u8]| run.len() >= least && MARKS.contains(&run[0]);
    text.len() >= LEAST_MASKED && (letters == 0 || runs.into_iter().any(is_run_of_marks))
}

fn is_made_up(letters: &[u8], least_repeated: usize) -> bool {
    is_repetition(letters, least_repeated) || is_words(letters)
}

/// Whether the text repeats one part; the last repetition may be incomplete.
fn is_repetition(letters: &[u8], least_repeated: usize) -> bool {
    let longest = letters.len().div_ceil(2).min(letters.len().saturating_sub(least_repeated));
    (1..=longest).any(|part| letters[part..] == letters[..letters.len() - part])
}

/// Whether the text has only words of templates, and possibly a number of one or two digits at its end.
fn is_words(letters: &[u8]) -> bool {
    if letters.len() > MOST_LETTERS {
        return false;
    }
    // The positions that a sequence of whole words reaches.
    let mut reached = [false; MOST_LETTERS + 1];
    reached[0] = true;
    for at in 0..letters.len() {
        if reached[at] {
            each_word(&letters[at..], |length| reached[at + length] = true);
        }
    }
    let digits = letters.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let number = if digits <= 2 { digits } else { 0 };
    [0, number].iter().any(|number| letters.len() > *number && reached[letters.len() - number])
}

/// Calls `found` with the length of each word, row and run that a text starts with.
fn each_word(text: &[u8], mut found: impl FnMut(usize)) {
    for word in WORDS {
        if text.starts_with(word.as_bytes()) {
            found(word.len());
        }
    }
    for row in ROWS.map(str::as_bytes) {
        for start in 0..row.len() {
            let same = row[start..].iter().zip(text).take_while(|(row, text)| row == text).count();
            (LEAST_OF_ROW..=same).for_each(&mut found);
        }
    }
    let run = text.iter().take_while(|&byte| Some(byte) == text.first()).count();
    (LEAST_RUN..=run).for_each(found);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// How likely each letter and digit is, whatever its case, and how likely another character is.
    struct Alphabet {
        of: fn(u8) -> f64,
        other: f64,
    }

    const LETTERS_AND_DIGITS: Alphabet =
        Alphabet { of: |byte| if byte.is_ascii_digit() { 1.0 / 62.0 } else { 2.0 / 62.0 }, other: 0.0 };
    const BASE64_URL: Alphabet = Alphabet {
        of: |byte| if byte.is_ascii_digit() { 1.0 / 64.0 } else { 2.0 / 64.0 },
        other: 2.0 / 64.0,
    };
    const HEX: Alphabet =
        Alphabet { of: |byte| if byte.is_ascii_hexdigit() { 1.0 / 16.0 } else { 0.0 }, other: 0.0 };

    fn float(number: usize) -> f64 {
        f64::from(u32::try_from(number).unwrap())
    }

    fn power(base: f64, times: usize) -> f64 {
        std::iter::repeat_n(base, times).product()
    }

    impl Alphabet {
        /// An upper bound on how likely a random text of this length is refused: the sum over all ways to be
        /// refused.
        fn refused(&self, length: usize) -> f64 {
            let words = self.words(length);
            let whole: f64 = (b'a'..=b'z').chain(b'0'..=b'9').map(self.of).sum();
            // As many letters and digits as there are by chance.
            let by_count = (0..=length).map(|count| {
                let rest = length - count;
                let ways = (0..rest).map(|at| float(length - at) / float(at + 1)).product::<f64>();
                let chance = ways * power(whole, count) * power(self.other, rest);
                // Given that there are so many, each is as likely as in a text of them alone.
                chance * (self.repetition(count, whole) + words[count] / power(whole, count)).min(1.0)
            });
            by_count.sum::<f64>()
                + self.masked(length)
                + if self.other > 0.0 { 64.0_f64.powi(-9) } else { 0.0 }
        }

        fn words(&self, length: usize) -> Vec<f64> {
            let mut words: BTreeSet<Vec<u8>> = WORDS.iter().map(|word| word.as_bytes().to_vec()).collect();
            for row in ROWS.map(str::as_bytes) {
                for start in 0..row.len() {
                    for end in start + LEAST_OF_ROW..=row.len() {
                        words.insert(row[start..end].to_vec());
                    }
                }
            }
            for byte in (b'a'..=b'z').chain(b'0'..=b'9') {
                words.extend((LEAST_RUN..=length).map(|length| vec![byte; length]));
            }
            let mut reached = vec![0.0; length + 1];
            reached[0] = 1.0;
            for at in 1..=length {
                let ends = words.iter().filter(|word| word.len() <= at);
                reached[at] = ends
                    .map(|word| {
                        reached[at - word.len()] * word.iter().map(|&byte| (self.of)(byte)).product::<f64>()
                    })
                    .sum();
            }
            let digit: f64 = (b'0'..=b'9').map(self.of).sum();
            (0..=length)
                .map(|at| (0..=at.min(2)).map(|digits| reached[at - digits] * power(digit, digits)).sum())
                .collect()
        }

        fn repetition(&self, count: usize, whole: f64) -> f64 {
            let same: f64 =
                (b'a'..=b'z').chain(b'0'..=b'9').map(|byte| ((self.of)(byte) / whole).powi(2)).sum();
            let longest = count.div_ceil(2).min(count.saturating_sub(LEAST_REPEATED));
            (1..=longest).map(|part| power(same, count - part)).sum()
        }

        fn masked(&self, length: usize) -> f64 {
            let run = LEAST_MASKED.max(length / LEAST_PART);
            let places = float((length + 1).saturating_sub(run));
            let of = |mark: u8| {
                if mark.is_ascii_alphabetic() {
                    (self.of)(mark.to_ascii_lowercase()) / 2.0
                } else {
                    self.other / 2.0
                }
            };
            let no_letters = power(self.other, length);
            places * MARKS.iter().map(|&mark| power(of(mark), run)).sum::<f64>() + no_letters
        }
    }

    #[test]
    fn a_random_key_is_refused_as_rarely_as_documented() {
        for (what, alphabet, length, once_in) in [
            ("letters and digits", LETTERS_AND_DIGITS, 24, 1e12),
            ("letters and digits", LETTERS_AND_DIGITS, 16, 1e11),
            ("letters and digits", LETTERS_AND_DIGITS, 64, 1e12),
            ("base64url", BASE64_URL, 24, 1e12),
            ("base64url", BASE64_URL, 43, 1e12),
            ("a UUID", HEX, 32, 1e17),
        ] {
            let refused = alphabet.refused(length);
            println!("{what}, {length}: {refused:e}");
            assert!(refused < 1.0 / once_in, "{what}, {length}: {refused:e}");
        }
    }

    #[test]
    fn no_random_key_is_refused() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % bound).unwrap()
        };
        let base64_url = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for (alphabet, length) in [
            (&base64_url[..62], 24),
            (&base64_url[..62], 16),
            (&base64_url[..], 24),
            (&base64_url[..], 43),
            (&b"0123456789abcdef"[..], 32),
            (&b"-._~+/abcdefghijklmnopqrstuvwxyz"[..], 24),
        ] {
            for _ in 0..20_000 {
                let key: Vec<u8> = (0..length).map(|_| alphabet[below(alphabet.len() as u64)]).collect();
                assert_eq!(hint(&key), None, "{}", String::from_utf8_lossy(&key));
            }
        }
    }

    #[test]
    fn the_words_are_lower_case_and_no_word_is_one_letter() {
        for word in WORDS {
            assert!(word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
    }
}
