//! One variable of a `.env` file.

mod lines;

use std::path::PathBuf;

use super::file::{Reader, file_settings};
use super::{Absence, LineFault, Problem, Provenance, Reading, Remark, Source, SourceError, similar_names};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::Seal;
use crate::internal::files::absolute;
use crate::key::{Hint, Profile};
use lines::{Lines, after_export, blanks, first, starts};

/// The largest `.env` that is read, in bytes.
const MAX_DOTENV: usize = 256 * 1024;

/// One variable of a `.env` file. No process variable is set or substituted, and parent directories are not
/// searched.
///
/// The file goes through the checks of [`SecretFile`](super::SecretFile). This crate has a parser of its own,
/// because `.env` has no specification and the programs that read such files disagree:
///
/// - The line of the key must be one that python-dotenv and Node's `util.parseEnv` read alike: `NAME=value`,
///   optionally after `export `, with plain spaces around, the value alone or in one pair of single or double
///   quotes, and a comment after a space and a `#`. Names are case-sensitive. Anything else is an error with
///   the line and what to change ([`LineFault`](super::LineFault)), and so is a variable that is set twice.
/// - The variable is absent only if no line begins with its name, by any definition of a line end, and no key
///   stands alone on a line. A line that may be a part of another variable's quoted value is an error.
/// - Lines of other variables may have any form. Where programs read one of them differently, a [`Remark`]
///   names it.
/// - A variable that is set to nothing counts as not set.
///
/// In one case this parser finds what a program misses: Node 20 takes a byte order mark, and a line that has
/// no `=` and is neither empty nor starts with `#`, for a part of the name on the line after it, and stops at
/// a line without a name.
///
/// # Security
/// A `.env` is easily committed by mistake. Prefer a separate secret file.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{self, DotenvFile, Loaded};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join(".env");
/// std::fs::write(&path, "export KANAL_API_KEY='8fK2pX9mWq4Ld7Vb3Nc6Ts1Z'  # production\n").unwrap();
/// let source = DotenvFile::new(&path, "KANAL_API_KEY");
/// assert!(matches!(source::load(&source, Kanal::PROFILE)?, Loaded::Found(_)));
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct DotenvFile {
    path: PathBuf,
    name: String,
    reader: Reader,
}

impl DotenvFile {
    /// Creates a source of the variable `name` of the file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { path: absolute(path.into()), name: name.into(), reader: Reader::new() }
    }

    fn place(&self, line: Option<usize>) -> Provenance {
        Provenance::Dotenv { path: self.path.clone(), name: self.name.clone(), line }
    }

    fn find(&self, profile: &Profile) -> Result<Reading, Problem> {
        let file = self.reader.read(&self.path, MAX_DOTENV)?;
        let Some((text, mut remarks, stamp)) = file else {
            return Ok(Reading::absent(Absence::NoFile));
        };
        if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") || text.contains(&0) {
            return Err(Problem::NotText { hint: Hint::Nul });
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        // Screen only what is well-formed: an error, with its hint, would otherwise be made for each line.
        let is_key = |line: &[u8]| profile.format().accepts(line) && profile.format().screen(line).is_ok();
        let Some(setting) = find(text, &self.name, is_key)? else {
            let similar = similar(text, &self.name).map(|line| Absence::SimilarInFile { line });
            return Ok(Reading::absent(similar.unwrap_or(Absence::NotInFile)));
        };
        if setting.value.is_empty() {
            return Ok(Reading::absent(Absence::EmptyVariable));
        }
        remarks.extend(setting.remark);
        let value = WipedBytes::copy_of(setting.value);
        let place = self.place(Some(setting.line));
        Ok(Reading::of_wiped(value)
            .with_remarks(remarks)
            .with_provenance(place)
            .with_state(&self.path, stamp))
    }
}

file_settings!(DotenvFile);

impl Source for DotenvFile {
    fn provenance(&self) -> Provenance {
        self.place(None)
    }

    fn is_own(&self, _: Seal) -> bool {
        true
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        self.find(profile).map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

/// A variable that a line sets.
#[derive(Debug)]
struct Setting<'a> {
    /// The line, counted from 1.
    line: usize,
    value: &'a [u8],
    remark: Option<Remark>,
}

/// A place that looks like a line of the variable.
struct Site {
    /// The index of its line.
    line: usize,
    /// Whether the name is followed by a `=`.
    assigns: bool,
    /// Where in the line the value starts.
    value: Result<usize, LineFault>,
}

/// The value of `name`; `None` if no line can be read as setting it. `is_key` recognizes a key that stands
/// alone on a line.
fn find<'a>(
    text: &'a [u8],
    name: &str,
    is_key: impl Fn(&[u8]) -> bool,
) -> Result<Option<Setting<'a>>, Problem> {
    let lines = Lines::of(text);
    let own = own_line(&lines, name)?;
    let mut inside = None;
    let mut unclear = Unclear::default();
    let mut unnamed = None;
    lines.each_entry(|entry| {
        let line = lines.line(entry.line);
        let is_own = own.as_ref().is_some_and(|(own, _)| *own == entry.line);
        if own.as_ref().is_some_and(|(own, _)| entry.line < *own && *own < entry.furthest) {
            inside.get_or_insert(entry.line + 1);
        }
        let is_long = entry.nearest == entry.furthest && entry.nearest > entry.line + 1;
        if !is_own && !is_long && !is_clear(line) {
            unclear.add(entry.line + 1);
        }
        // `NAME=` has the form of a key with padding.
        if unnamed.is_none() && !line.contains(&b'=') && is_key(line.trim_ascii()) {
            unnamed = Some(entry.line + 1);
        }
    });
    let Some((index, start)) = own else {
        // A key without a name was meant to be read.
        return unnamed.map_or(Ok(None), |line| Err(Problem::BadLine { line, fault: LineFault::NoName }));
    };
    let bad = |fault| Problem::BadLine { line: index + 1, fault };
    if let Some(opened) = inside {
        return Err(bad(LineFault::InsideQuotes { opened }));
    }
    let value = value(&lines.line(index)[start..]).map_err(bad)?;
    Ok(Some(Setting { line: index + 1, value, remark: unclear.remark() }))
}

/// The first line, counted from 1, that sets a variable of a similar name to a value.
fn similar(text: &[u8], name: &str) -> Option<usize> {
    let (lines, names) = (Lines::of(text), similar_names(name));
    let sets = |line: &[u8], name: &str| match site(line, name.as_bytes()) {
        Some((true, Ok(start))) => !value(&line[start..]).is_ok_and(<[u8]>::is_empty),
        _ => false,
    };
    let at = (0..lines.count()).find(|&at| names.iter().any(|name| sets(lines.line(at), name)));
    at.map(|at| at + 1)
}

/// The index of the only line that sets the variable, and where its value starts.
fn own_line(lines: &Lines<'_>, name: &str) -> Result<Option<(usize, usize)>, Problem> {
    let mut faulty: Option<Problem> = None;
    let mut found: Option<Site> = None;
    for index in 0..lines.count() {
        for site in sites(lines.line(index), index, name) {
            if let Err(fault) = site.value {
                faulty.get_or_insert(Problem::BadLine { line: index + 1, fault });
            }
            if !site.assigns {
                continue;
            }
            match &found {
                Some(first) if first.line < index => {
                    return Err(Problem::Duplicate { first: first.line + 1, second: index + 1 });
                }
                Some(_) => {}
                None => found = Some(site),
            }
        }
    }
    match (faulty, found) {
        (Some(problem), _) => Err(problem),
        (None, Some(Site { line, value: Ok(value), .. })) => Ok(Some((line, value))),
        _ => Ok(None),
    }
}

/// The places of a line that look like one of the variable.
fn sites<'a>(line: &'a [u8], index: usize, name: &'a str) -> impl Iterator<Item = Site> + 'a {
    starts(line).filter_map(move |start| {
        let (assigns, value) = site(&line[start..], name.as_bytes())?;
        let value = if start > 0 { Err(LineFault::LineBreak) } else { value };
        Some(Site { line: index, assigns, value })
    })
}

/// Reads a text as a line of the variable: whether a `=` follows the name, and where the value starts.
fn site(line: &[u8], name: &[u8]) -> Option<(bool, Result<usize, LineFault>)> {
    let mut fault = None;
    let mut rest = line;
    if skip_blanks(&mut rest) {
        fault.get_or_insert(LineFault::Blank);
    }
    if let Some(after) = after_export(rest)
        && !name_at(rest, name).is_some_and(|(after, _)| is_end(after))
    {
        if rest.len() - after.len() != "export ".len() || rest[6] != b' ' {
            fault.get_or_insert(LineFault::Export);
        }
        rest = after;
    }
    let quote = rest.first().copied().filter(|byte| b"'\"`".contains(byte));
    rest = &rest[usize::from(quote.is_some())..];
    let (mut rest, has_return) = name_at(rest, name)?;
    if has_return {
        fault.get_or_insert(LineFault::LineBreak);
    }
    if let Some(quote) = quote {
        fault.get_or_insert(LineFault::QuotedName);
        rest = rest.strip_prefix(&[quote]).unwrap_or(rest);
    }
    if !is_end(rest) {
        return None;
    }
    if skip_blanks(&mut rest) {
        fault.get_or_insert(LineFault::Blank);
    }
    let assigns = rest.first() == Some(&b'=');
    if !assigns {
        fault.get_or_insert(LineFault::NoEquals);
    }
    Some((assigns, fault.map_or_else(|| Ok(line.len() - rest.len() + 1), Err)))
}

/// What follows the name, and whether the name has CRs in it: Node ignores them.
fn name_at<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a [u8], bool)> {
    let (mut rest, mut has_return) = (text, false);
    for byte in name {
        while let Some(after) = rest.strip_prefix(b"\r") {
            (rest, has_return) = (after, true);
        }
        rest = rest.strip_prefix(&[*byte])?;
    }
    Some((rest, has_return))
}

/// Whether a name ends before this text.
fn is_end(text: &[u8]) -> bool {
    first(text).is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.' | '$'))
}

/// Skips blanks. Returns whether one of them was not a plain space.
fn skip_blanks(text: &mut &[u8]) -> bool {
    let (skipped, rest) = text.split_at(blanks(text));
    *text = rest;
    skipped.iter().any(|&byte| byte != b' ')
}

/// The value in what follows a `=`, if every program reads the same.
fn value(written: &[u8]) -> Result<&[u8], LineFault> {
    if starts(written).nth(1).is_some() {
        return Err(LineFault::LineBreak);
    }
    let mut body = written;
    if skip_blanks(&mut body) {
        return Err(LineFault::Blank);
    }
    let value = match body.first() {
        Some(quote @ (b'\'' | b'"')) => {
            let inside = &body[1..];
            let end = inside.iter().position(|byte| byte == quote).ok_or(LineFault::Unclosed)?;
            let after = &inside[end + 1..];
            let comment = after.trim_ascii_start();
            let is_apart = comment.len() < after.len();
            if !(comment.is_empty() || (is_apart && comment.starts_with(b"#"))) {
                let is_backslash = inside[..end].ends_with(b"\\");
                return Err(if is_backslash { LineFault::Backslash } else { LineFault::AfterQuotes });
            }
            // Loading removes a byte order mark from a text, and other programs do not.
            if inside.starts_with(b"\xef\xbb\xbf") {
                return Err(LineFault::Blank);
            }
            &inside[..end]
        }
        _ => unquoted(body)?,
    };
    if value.contains(&b'$') {
        return Err(LineFault::Dollar);
    }
    if value.contains(&b'\\') {
        return Err(LineFault::Backslash);
    }
    std::str::from_utf8(value).map(|_| value).map_err(|_| LineFault::NotUtf8)
}

fn unquoted(body: &[u8]) -> Result<&[u8], LineFault> {
    let hash = body.iter().position(|&byte| byte == b'#');
    let (value, is_comment) = body.split_at(hash.unwrap_or(body.len()));
    if !is_comment.is_empty() && !value.ends_with(b" ") {
        return Err(LineFault::Hash);
    }
    if value.iter().any(|byte| b"'\"`".contains(byte)) {
        return Err(LineFault::QuoteInside);
    }
    let end = value.iter().rposition(|&byte| byte != b' ').map_or(0, |at| at + 1);
    let value = &value[..end];
    let last = std::str::from_utf8(value).ok().and_then(|value| value.chars().next_back());
    if last
        .is_some_and(|last| !last.is_ascii_graphic() && blanks(last.encode_utf8(&mut [0; 4]).as_bytes()) > 0)
    {
        return Err(LineFault::Blank);
    }
    Ok(value)
}

/// Whether every program reads a line alike: a blank one, a comment, or `NAME=value` without blanks,
/// quotation marks or characters that some of them replace.
fn is_clear(line: &[u8]) -> bool {
    let body = line.trim_ascii_start();
    if body.is_empty() || body.starts_with(b"#") {
        return true;
    }
    let body = body.strip_prefix(b"export ").unwrap_or(body);
    let Some(equals) = body.iter().position(|&byte| byte == b'=') else {
        return false;
    };
    let name = body[..equals].trim_ascii_end();
    let is_name = name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_quoted = |value: &[u8]| matches!(value.first(), Some(b'\'' | b'"'));
    let written = &body[equals + 1..];
    let has_blank = |value: &[u8]| value.iter().any(u8::is_ascii_whitespace);
    is_name
        && !name.is_empty()
        && value(written).is_ok_and(|value| is_quoted(written.trim_ascii_start()) || !has_blank(value))
}

/// Lines of other variables that programs read differently.
#[derive(Default)]
struct Unclear {
    first: Option<usize>,
    count: usize,
}

impl Unclear {
    fn add(&mut self, line: usize) {
        self.first.get_or_insert(line);
        self.count += 1;
    }

    fn remark(&self) -> Option<Remark> {
        self.first.map(|first| Remark::UnclearLines { first, count: self.count })
    }
}
