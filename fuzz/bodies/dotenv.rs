//! An untrusted `.env` is asked for one of its variables.

use std::io::Write as _;
use std::path::Path;

use keysheath::FileProblem;
use keysheath::key::{Hint, KeyFormat, MAX_KEY_LENGTH, Origin, Profile};
use keysheath::source::{self, Absence, DotenvFile, LineFault, Loaded, Problem, Provenance};

/// A format as wide as there is, so that as many values as can be are keys.
const ANY: &Profile =
    &Profile::new("any", "K", Origin::https("any.example"), KeyFormat::between(1, MAX_KEY_LENGTH), 128);

/// The variable that is looked for; short, so that a fuzzer writes it often.
const NAME: &str = "K";

/// Puts `data` into a file, in memory where that is possible, and looks for the variable.
pub(crate) fn dotenv(data: &[u8]) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a temporary file");
    file.write_all(data).expect("the file takes the bytes");

    let source = DotenvFile::new(file.path(), NAME);
    match source::load(&source, ANY) {
        Ok(Loaded::Absent(absence)) => check_absence(data, absence),
        Ok(Loaded::Found(found)) => {
            let Provenance::Dotenv { line: Some(line), .. } = found.provenance() else {
                panic!("a value without its line: {:?}", found.provenance());
            };
            let key = found.key().expose_secret();
            let written = value_on(data, *line).expect("the line sets the variable").trim_ascii_start();
            let quote = written.first().copied().filter(|byte| b"'\"".contains(byte));
            let after = written[usize::from(quote.is_some())..].strip_prefix(key.as_bytes());
            let after = after.expect("the value stands on its line as it was read");
            let after = match quote {
                Some(quote) => after.strip_prefix(&[quote]).expect("the value ends where its quotes do"),
                None => after,
            };
            assert!(after.first().is_none_or(u8::is_ascii_whitespace), "only a part of the value was read");
            assert_eq!(lines_that_set_it(data), [*line], "another line sets it as well");
        }
        Err(error) => {
            check_problem(data, error.problem());
            let place = error.provenance().to_string();
            let after = place.strip_prefix(&format!("{NAME} in {}", file.path().display()));
            let after = after.expect("the place is the variable and the file");
            assert!(after.is_empty() || without_numbers(after) == ", line ", "the place shows more: {place}");
            assert_eq!(error.to_string(), format!("{place}: {}", error.problem()));
        }
    }
}

/// The lines that set the variable, counted from 1, whatever may be thought to end a line.
fn lines_that_set_it(data: &[u8]) -> Vec<usize> {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let text = String::from_utf8_lossy(data);
    let breaks =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut number = 1;
    let mut found = Vec::new();
    for line in text.split_inclusive(breaks) {
        if sets_it(line.trim_end_matches(breaks)) {
            found.push(number);
        }
        number += usize::from(line.ends_with('\n'));
    }
    found
}

fn sets_it(line: &str) -> bool {
    let line = line.trim_start();
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
    let rest = exported.map_or(line, str::trim_start).strip_prefix(NAME);
    rest.is_some_and(|rest| rest.trim_start().starts_with('='))
}

/// What is written after the `=` of a line that sets the variable, read plainly.
fn value_on(data: &[u8], line: usize) -> Option<&[u8]> {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let text = data.split(|&byte| byte == b'\n').nth(line.checked_sub(1)?)?;
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (std::str::from_utf8(&text[..equals]).ok()?.trim(), &text[equals + 1..]);
    let exported = name
        .strip_prefix("export")
        .filter(|name| name.starts_with(char::is_whitespace))
        .map(str::trim_start)
        .filter(|name| !name.is_empty());
    (exported.unwrap_or(name) == NAME).then_some(value)
}

/// Whether every line is blank, a comment, or a name and a plain value: nothing that could be misread.
fn is_plain(data: &[u8]) -> bool {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    data.split(|&byte| byte == b'\n').all(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.strip_prefix(b" ").unwrap_or(line);
        if line.first().is_none_or(|&byte| byte == b'#') {
            return line.iter().all(|byte| matches!(byte, b' '..=b'~'));
        }
        let Some(equals) = line.iter().position(|&byte| byte == b'=') else { return false };
        let (name, value) = (&line[..equals], &line[equals + 1..]);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        name.first().is_some_and(u8::is_ascii_alphabetic)
            && name.iter().all(u8::is_ascii_alphanumeric)
            && value.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'/')
    })
}

fn check_absence(data: &[u8], absence: Absence) {
    let lines = lines_that_set_it(data);
    match absence {
        Absence::NotInFile => assert!(lines.is_empty(), "a line sets the variable, and it was not found"),
        Absence::SimilarInFile { line, .. } => {
            assert!(lines.is_empty(), "a line sets the variable, and it was not found");
            let count = data.split(|&byte| byte == b'\n').count();
            assert!((1..=count).contains(&line), "line {line} of {count}");
        }
        Absence::EmptyVariable => {
            let [line] = lines[..] else { panic!("{lines:?} set it") };
            let value = value_on(data, line).expect("the line sets the variable").trim_ascii();
            let rest = value.strip_prefix(b"''").or(value.strip_prefix(b"\"\"")).unwrap_or(value);
            let after = rest.trim_ascii_start();
            let is_comment = after.starts_with(b"#") && after.len() < rest.len() && rest.len() < value.len();
            assert!(after.is_empty() || is_comment, "a value was read as nothing");
        }
        absence => panic!("the file is there: {absence:?}"),
    }
}

/// Each problem's text is a constant with line numbers, or a format error, which holds no byte of the text.
fn check_problem(data: &[u8], problem: &Problem) {
    let count = data.split(|&byte| byte == b'\n').count();
    let misread = matches!(problem, Problem::BadLine { .. } | Problem::NotText { .. });
    assert!(!misread || !is_plain(data), "a plain file is refused: {problem}");
    let (sample, lines) = match *problem {
        Problem::BadLine { line, fault } => {
            assert!((1..=count).contains(&line), "line {line} of {count}");
            let (opened, fault) = match fault {
                LineFault::InsideQuotes { opened } => (Some(opened), LineFault::InsideQuotes { opened: 1 }),
                fault => (None, fault),
            };
            assert!(opened.is_none_or(|opened| opened < line), "line {line} is inside {opened:?}");
            let sample = Problem::BadLine { line: 1, fault };
            let other_numbers = numbers(&sample.to_string()).split_off(1 + usize::from(opened.is_some()));
            (sample, std::iter::once(line).chain(opened).chain(other_numbers).collect())
        }
        Problem::NotText { .. } => {
            let sample = Problem::NotText { hint: Hint::Nul };
            assert_eq!(problem.to_string(), sample.to_string(), "the message holds more than its hint");
            return;
        }
        Problem::Duplicate { first, second } => {
            assert!(first < second, "lines {first} and {second}");
            (Problem::Duplicate { first: 1, second: 1 }, vec![first, second])
        }
        Problem::Malformed(error) => {
            assert_eq!(problem.to_string(), error.to_string());
            return;
        }
        Problem::File(FileProblem::TooLarge { limit }) => {
            assert!(data.len() > limit);
            (Problem::File(FileProblem::TooLarge { limit: 1 }), vec![limit])
        }
        ref problem => panic!("a problem of the machine and not of the text: {problem}"),
    };
    let (message, sample) = (problem.to_string(), sample.to_string());
    assert_eq!(numbers(&message), lines, "the message has other numbers than its lines");
    assert_eq!(without_numbers(&message), without_numbers(&sample), "the message holds more than its lines");
}

fn numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}
