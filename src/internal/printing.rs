//! Names and times as they are printed and written down. Every name that comes from outside is printed
//! through the filter of this module. Times are UTC, to the second.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A name (a path, a variable, a program, a place) for a message. Control characters, line and paragraph
/// separators, and characters that change the direction of text or have no width are printed as escapes, so
/// that a name cannot forge a log line or send codes to a terminal.
#[derive(Clone, Copy)]
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_unsafe_to_print(character) {
                write!(f, "\\u{{{:x}}}", u32::from(character))?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path for a message, as [`Printable`] prints a name. What is not Unicode in it is printed as U+FFFD.
#[derive(Clone, Copy)]
pub(crate) struct PrintablePath<'a>(pub(crate) &'a Path);

impl fmt::Display for PrintablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(&self.0.to_string_lossy()).fmt(f)
    }
}

/// Whether a character changes more of a line than its own place.
pub(crate) const fn is_unsafe_to_print(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

const DAY: u64 = 86_400;

/// What comes after it counts as this: the last second of the year 9999.
pub(crate) const LAST: u64 = 253_402_300_799;

/// A time in whole seconds since 1970, as it is written down. What lies before is 1970, and what lies after
/// the year 9999 its last second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

/// A time, printed as RFC 3339 has it (`2026-11-24T09:00:00Z`); with `{:#}` the day alone.
#[derive(Clone, Copy)]
pub(crate) struct Utc(pub(crate) SystemTime);

/// A span of time, printed in its largest unit and the next.
#[derive(Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().min(LAST))
    }
}

impl Moment {
    /// No later than the year 9999, which the clock of every platform can tell.
    pub(crate) fn to_time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.min(LAST))
    }
}

impl Utc {
    fn seconds(self) -> u64 {
        self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().min(LAST)
    }

    /// Year, month and day.
    pub(crate) fn date(self) -> (u64, u64, u64) {
        let mut day = self.seconds() / DAY;
        let mut year = 1970;
        while day >= days_of(year) {
            day -= days_of(year);
            year += 1;
        }
        let february = if is_leap(year) { 29 } else { 28 };
        let mut month = 1;
        for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if day < days {
                break;
            }
            day -= days;
            month += 1;
        }
        (year, month, day + 1)
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        write!(f, "{year:04}-{month:02}-{day:02}")?;
        if f.alternate() {
            return Ok(());
        }
        let second = self.seconds() % DAY;
        write!(f, "T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is left is never printed as nothing.
        let seconds = self.0.as_secs().saturating_add(u64::from(self.0.subsec_nanos() > 0));
        let unit = |f: &mut fmt::Formatter<'_>, count: u64, name: &str| {
            write!(f, "{count} {name}{}", if count == 1 { "" } else { "s" })
        };
        let two = |f: &mut fmt::Formatter<'_>, large: (u64, &str), small: (u64, &str)| {
            unit(f, large.0, large.1)?;
            if small.0 > 0 {
                f.write_str(" ")?;
                unit(f, small.0, small.1)?;
            }
            Ok(())
        };
        match seconds {
            0..60 => unit(f, seconds, "second"),
            60..3600 => two(f, (seconds / 60, "minute"), (seconds % 60, "second")),
            3600..DAY => two(f, (seconds / 3600, "hour"), (seconds / 60 % 60, "minute")),
            _ => two(f, (seconds / DAY, "day"), (seconds / 3600 % 24, "hour")),
        }
    }
}

/// Numbers that are near to where something overflows, and any others.
#[cfg(test)]
pub(crate) fn extreme_numbers() -> impl proptest::strategy::Strategy<Value = u64> {
    use proptest::strategy::Strategy as _;

    let edges: [u64; 8] = [
        0,
        u32::MAX.into(),
        LAST,
        u64::MAX / 1_000_000_000,
        u64::MAX / 10_000_000,
        u64::MAX >> 2,
        u64::MAX >> 1,
        u64::MAX,
    ];
    let near = (0..edges.len(), -2_i64..=2).prop_map(move |(at, off)| edges[at].wrapping_add_signed(off));
    proptest::prop_oneof![near, proptest::num::u64::ANY]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line_or_turn_text_round() {
        let name = "X\n2026-11-28 all is well\r\x1b[2J\u{9b}\u{202e}\u{2028}\u{feff}";
        let printed = Printable(name).to_string();
        assert_eq!(
            printed,
            "X\\u{a}2026-11-28 all is well\\u{d}\\u{1b}[2J\\u{9b}\\u{202e}\\u{2028}\\u{feff}"
        );
    }

    #[test]
    fn a_path_is_printed_as_its_name_is() {
        assert_eq!(PrintablePath(Path::new("/a\n\u{202e}b")).to_string(), "/a\\u{a}\\u{202e}b");
    }

    #[test]
    fn ordinary_names_are_printed_as_they_are() {
        for name in ["/run/secrets/kanal", "C:\\keys\\kanal", "clé-d’été", "鍵"] {
            assert_eq!(Printable(name).to_string(), name);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_number_is_a_time_that_is_printed_and_written_again(seconds in extreme_numbers()) {
            let time = Moment(seconds).to_time();
            assert_eq!(Moment::from(time).0, seconds.min(LAST));
            if let Some(later) = time.checked_add(Duration::from_secs(seconds)) {
                assert!(Moment::from(later).0 <= LAST);
            }
            assert_eq!(Utc(time).to_string().len(), "9999-12-31T23:59:59Z".len());
            drop(Span(Duration::from_secs(seconds)).to_string());
        }
    }

    fn at(seconds: u64) -> Utc {
        Utc(Moment(seconds).to_time())
    }

    // By `date -u -d @SECONDS`.
    #[test]
    fn times_are_printed_as_date_prints_them() {
        for (seconds, printed) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_795_510_531, "2026-11-24T08:55:31Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
            (LAST + 1, "9999-12-31T23:59:59Z"),
            (u64::MAX >> 2, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(at(seconds).to_string(), printed);
        }
        assert_eq!(format!("{:#}", at(1_795_510_531)), "2026-11-24");
        assert_eq!(Utc(SystemTime::UNIX_EPOCH - Duration::from_secs(9)).to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn the_longest_span_is_printed() {
        assert_eq!(Span(Duration::MAX).to_string(), "213503982334601 days 7 hours");
        assert_eq!(Span(Duration::from_secs(u64::MAX)).to_string(), "213503982334601 days 7 hours");
    }

    #[test]
    fn spans_are_printed_in_two_units() {
        for (seconds, printed) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (60, "1 minute"),
            (3_599, "59 minutes 59 seconds"),
            (7_260, "2 hours 1 minute"),
            (86_400, "1 day"),
            (90 * 86_400 + 3_600, "90 days 1 hour"),
        ] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), printed);
        }
        assert_eq!(Span(Duration::from_millis(1)).to_string(), "1 second");
    }
}
