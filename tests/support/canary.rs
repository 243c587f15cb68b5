//! A key that is planted, and the search for it in what is shown.

use std::error::Error;
use std::fmt::{Debug, Display, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A well-formed Kanal key that no message, path or fingerprint has six bytes of.
pub(crate) const KANAL: &str = "Qv7Yc4Nw9Rk2Xz8Jh5Tm3Gp6";

/// A well-formed Katana key; it starts with [`KANAL`], so that one search finds both.
pub(crate) const KATANA: &str = "Qv7Yc4Nw9Rk2Xz8Jh5Tm3Gp6-Wd1Bf0Ls";

/// Letters and digits in the order in which a registry draws them.
const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// What a registry's generator has to give for the canary to be drawn, and nothing else.
pub(crate) fn draw_the_canary(bytes: &mut [u8]) {
    for (byte, wanted) in bytes.iter_mut().zip(KANAL.chars().cycle()) {
        let place = ALPHABET.find(wanted).expect("the canary is of letters and digits");
        *byte = u8::try_from(place).expect("62 places");
    }
}

/// How many bytes of the canary in a row count as shown.
const RUN: usize = 6;

/// Asserts that `shown` has no part of the canary: as it is (in either case), in base64, in hexadecimal,
/// percent-encoded, or as a list of numbers.
pub(crate) fn assert_silent(what: &str, shown: &str) {
    // Not printed with `{shown}`: what fails here may run where keys are real.
    assert_eq!(traces(shown), [] as [&str; 0], "{what} shows the canary in {} bytes", shown.len());
}

/// Asserts that something shows nothing of the canary as `Debug` prints it, in both forms.
pub(crate) fn assert_debug_silent(what: &str, value: &dyn Debug) {
    assert_silent(what, &format!("{value:?}\n{value:#?}"));
}

/// Asserts that something shows nothing of the canary as `Debug` and as `Display` print it.
pub(crate) fn assert_value_silent(what: &str, value: &(impl Debug + Display)) {
    assert_debug_silent(what, value);
    assert_silent(what, &format!("{value}\n{value:#}"));
}

/// Asserts that an error and each of its causes show nothing of the canary.
pub(crate) fn assert_error_silent(what: &str, error: &(dyn Error + 'static)) {
    assert_silent(what, &all_of(error));
}

/// Asserts that an error and each of its causes show nothing of another key that was planted.
pub(crate) fn assert_hides(error: &(dyn Error + 'static), planted: &str) {
    assert_eq!(traces_of(planted, &all_of(error)), [] as [&str; 0], "the error shows what was planted");
}

/// What an error and each of its causes print.
pub(crate) fn all_of(error: &(dyn Error + 'static)) -> String {
    let mut shown = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        // Writing to a `String` cannot fail.
        let _ = writeln!(shown, "{error}\n{error:#}\n{error:?}\n{error:#?}");
        cause = error.source();
    }
    shown
}

/// The forms in which a part of the canary occurs in `shown`.
pub(crate) fn traces(shown: &str) -> Vec<&'static str> {
    traces_of(KATANA, shown)
}

/// The forms in which a part of a key occurs in `shown`.
pub(crate) fn traces_of(key: &str, shown: &str) -> Vec<&'static str> {
    // The forms that span characters are written on several lines by `{:#?}`.
    let dense: String = shown.chars().filter(|c| !c.is_whitespace()).collect();
    let dense = dense.to_lowercase();
    let plain = shown.to_lowercase();
    let mut traces = Vec::new();
    for (form, needles) in needles(key) {
        let found = match form {
            // The case is a part of base64.
            "base64" => needles.iter().any(|needle| shown.contains(needle)),
            "text" => needles.iter().any(|needle| plain.contains(needle) || dense.contains(needle)),
            _ => needles.iter().any(|needle| dense.contains(needle)),
        };
        if found {
            traces.push(form);
        }
    }
    traces
}

fn needles(key: &str) -> [(&'static str, Vec<String>); 6] {
    let key = key.as_bytes();
    let runs = |show: fn(u8) -> String, between: &str| {
        let run = |run: &[u8]| run.iter().map(|&byte| show(byte)).collect::<Vec<_>>().join(between);
        key.windows(RUN).map(run).collect::<Vec<_>>()
    };
    // Six bytes are eight symbols, wherever in a longer text they begin.
    let base64 = |run: &[u8]| [STANDARD_NO_PAD.encode(run), URL_SAFE_NO_PAD.encode(run)];
    [
        ("text", runs(|byte| char::from(byte).to_ascii_lowercase().to_string(), "")),
        ("base64", key.windows(RUN).flat_map(base64).collect()),
        ("hexadecimal", runs(|byte| format!("{byte:02x}"), "")),
        ("list of bytes", runs(|byte| byte.to_string(), ",")),
        ("list of hexadecimal bytes", runs(|byte| format!("{byte:02x}"), ",")),
        ("percent-encoded", runs(|byte| format!("%{byte:02x}"), "")),
    ]
}
