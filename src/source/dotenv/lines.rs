//! The lines of a `.env`, and which of them are certainly lines of their own.
//!
//! Programs disagree about where a quoted value of several lines ends: Node ends it at the next quotation
//! mark, python-dotenv at the next one that no backslash escapes, older versions at the next one without a
//! backslash before it. [`Lines::each_entry`] follows all of them at once, so it finds each line that one of
//! them would skip.

use crate::key::format::hint::is_invisible;

/// The text of a `.env`, with the position of each line.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    /// Where each line starts, and then the end of the text.
    starts: Vec<usize>,
}

/// A line at which some program starts to read an entry.
#[derive(Clone, Copy)]
pub(super) struct EntryLine {
    /// Its index.
    pub(super) line: usize,
    /// The lowest index at which some program continues.
    pub(super) nearest: usize,
    /// The highest one.
    pub(super) furthest: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        let ends = text.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
        let mut starts: Vec<usize> = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        if starts.last() != Some(&text.len()) {
            starts.push(text.len());
        }
        Self { text, starts }
    }

    pub(super) fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// A line without its LF or CR LF.
    pub(super) fn line(&self, index: usize) -> &'a [u8] {
        let line = &self.text[self.starts[index]..self.starts[index + 1]];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Calls `look` with each line at which some program starts to read an entry.
    pub(super) fn each_entry(&self, mut look: impl FnMut(EntryLine)) {
        let mut is_entry = vec![false; self.count() + 1];
        is_entry[0] = true;
        for line in 0..self.count() {
            if !is_entry[line] {
                continue;
            }
            let (mut nearest, mut furthest) = (usize::MAX, 0);
            self.each_next(line, |next| {
                is_entry[next] = true;
                nearest = nearest.min(next);
                furthest = furthest.max(next);
            });
            look(EntryLine { line, nearest, furthest });
        }
    }

    /// Calls `found` with the index of each line at which some program continues after this one.
    fn each_next(&self, index: usize, mut found: impl FnMut(usize)) {
        let line = self.line(index);
        let mut is_certain = false;
        // The last `=` that was looked at: many starts may share one.
        let mut looked_at = None;
        for start in starts(line) {
            let rest = &line[start..];
            let body_at = start + blanks(rest);
            let body = &line[body_at..];
            // Node takes a comment for a name, unless it starts the line.
            if rest.first() == Some(&b'#') {
                continue;
            }
            let place = |of: &[u8]| self.starts[index] + line.len() - of.len();
            // python-dotenv accepts a name in single quotes, also over several lines.
            let name = after_export(body).unwrap_or(body);
            if name.first() == Some(&b'\'') {
                self.each_line_after(place(name), index, &[first_quote], &mut found);
            }
            if looked_at.is_some_and(|at| at >= body_at) {
                continue;
            }
            let equals = body.iter().position(|&byte| byte == b'=');
            looked_at = Some(equals.map_or(line.len(), |equals| body_at + equals));
            let Some(equals) = equals else { continue };
            let written = &body[equals + 1..];
            let (before, value) = written.split_at(blanks(written));
            let ends: &[Ending] = match value.first() {
                Some(b'"' | b'\'') => &[first_quote, escaped_quote, marked_quote],
                Some(b'`') => &[first_quote],
                _ => continue,
            };
            // A program that reads no name here, or takes a blank for the start of the value, continues at
            // the next line.
            is_certain |=
                start == 0 && ends.len() > 1 && are_plain(before) && is_plain_name(line, equals + body_at);
            self.each_line_after(place(value), index, ends, &mut found);
        }
        if !is_certain {
            found(index + 1);
        }
    }

    /// Calls `found` with the line after the one where the quotation mark at `open` is closed, by each rule
    /// in `ends`.
    fn each_line_after(&self, open: usize, index: usize, ends: &[Ending], found: &mut impl FnMut(usize)) {
        let (quote, rest) = (self.text[open], &self.text[open + 1..]);
        for end in ends {
            let Some(close) = end(rest, quote) else {
                found(index + 1);
                continue;
            };
            let closing = self.starts.partition_point(|&start| start <= open + 1 + close) - 1;
            found(closing + 1);
            // The rest of that line may be another entry, for a program that continues there.
            let reads_on =
                |line: &[u8]| starts(line).nth(1).is_some() || (ends.len() == 1 && line.contains(&b'='));
            if closing > index && reads_on(self.line(closing)) {
                found(closing);
            }
        }
    }
}

/// Where a quotation mark is closed in what follows it.
type Ending = fn(&[u8], u8) -> Option<usize>;

fn first_quote(text: &[u8], quote: u8) -> Option<usize> {
    text.iter().position(|&byte| byte == quote)
}

/// A backslash escapes what follows it.
fn escaped_quote(text: &[u8], quote: u8) -> Option<usize> {
    let mut is_escaped = false;
    text.iter().position(|&byte| {
        let closes = byte == quote && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    })
}

/// A backslash before it keeps a quotation mark from closing, unless it is the last one.
fn marked_quote(text: &[u8], quote: u8) -> Option<usize> {
    let plain = (0..text.len()).find(|&at| text[at] == quote && (at == 0 || text[at - 1] != b'\\'));
    plain.or_else(|| text.iter().rposition(|&byte| byte == quote))
}

/// Where a line may begin within a line: at its start, and after each character that some programs take for a
/// line end. Of several such characters with only blanks between them, after the first: what begins there
/// begins with blanks, and each is looked at once.
pub(super) fn starts(line: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    let after_breaks = std::iter::from_fn(move || {
        let length = |at: usize| match line[at..] {
            [b'\x0b' | b'\x0c' | b'\r' | b'\x1c'..=b'\x1e', ..] => Some(1),
            [0xc2, 0x85, ..] => Some(2),
            [0xe2, 0x80, 0xa8 | 0xa9, ..] => Some(3),
            _ => None,
        };
        let start = (at..line.len()).find_map(|at| length(at).map(|length| at + length));
        at = start.map_or(line.len(), |start| start + blanks(&line[start..]));
        start
    });
    std::iter::once(0).chain(after_breaks)
}

/// How many bytes of blanks and invisible characters a text starts with.
pub(super) fn blanks(text: &[u8]) -> usize {
    let mut rest = text;
    while let Some(character) = first(rest).filter(|&c| is_blank(c)) {
        rest = &rest[character.len_utf8()..];
    }
    text.len() - rest.len()
}

/// What follows `export` and blanks.
pub(super) fn after_export(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"export")?;
    Some(&rest[blanks(rest)..]).filter(|after| after.len() < rest.len())
}

/// The first character, where it is one.
pub(super) fn first(text: &[u8]) -> Option<char> {
    text[..text.len().min(4)].utf8_chunks().next()?.valid().chars().next()
}

/// White space, controls, and what cannot be seen.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control() || is_invisible(character)
}

/// Whether every program reads a name before the `=`.
fn is_plain_name(line: &[u8], equals: usize) -> bool {
    let name = &line[..equals];
    let name = &name[name.iter().take_while(|&&byte| byte == b' ').count()..];
    let name = name.strip_prefix(b"export ").unwrap_or(name).trim_ascii();
    // `export` before a blank is a name for some programs only.
    let is_name = !name.is_empty() && name != b"export";
    is_name && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn are_plain(blanks: &[u8]) -> bool {
    blanks.iter().all(|&byte| byte == b' ')
}
