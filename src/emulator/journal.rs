//! What was asked and answered.

use std::collections::VecDeque;
use std::time::SystemTime;

use http::Method;

use super::fault::FaultId;
use crate::key::{Fingerprint, StoreId};

/// How many entries a journal keeps; then the oldest goes.
///
/// ```
/// assert_eq!(keysheath::emulator::MAX_JOURNAL, 10_000);
/// ```
pub const MAX_JOURNAL: usize = 10_000;

/// The longest number of a path that is written down, in bytes. Keys of both issuers are longer.
const MAX_SEGMENT: usize = 15;

/// How many segments of a path are written down.
const MAX_SEGMENTS: usize = 12;

/// One request and its answer. There is never a header in it, nor a query, nor a body.
///
/// ```
/// use keysheath::emulator::Emulator;
///
/// let emulator = Emulator::start()?;
/// let url = format!("{}/api/v1/stores/123/orders", emulator.origin());
/// assert!(ureq::get(&url).call().is_err()); // no key
///
/// let journal = emulator.journal();
/// assert_eq!((journal[0].method, &*journal[0].path), ("GET", "/api/v1/stores/123/orders"));
/// assert_eq!((journal[0].status, journal[0].key), (Some(401), None));
/// # Ok::<(), keysheath::emulator::EmulatorError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// Its number, from 1, in the order in which requests were answered.
    pub number: u64,
    /// When it was answered, by the emulator's clock.
    pub time: SystemTime,
    /// The method; `OTHER` where it is none of HTTP's own.
    pub method: &'static str,
    /// The path, without a query. What is neither a word of a documented route nor a number of at most 15 digits is shown
    /// as `…`, because it might be a key.
    pub path: String,
    /// The store that the path names.
    pub store: Option<StoreId>,
    /// The one-way name of the key that was sent, where it is one of the emulator's.
    pub key: Option<Fingerprint>,
    /// The status that was sent; `None` where the connection ended first.
    pub status: Option<u16>,
    /// The fault rule that was applied.
    pub fault: Option<FaultId>,
}

/// The last [`MAX_JOURNAL`] entries.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<JournalEntry>,
    written: u64,
}

impl Journal {
    /// Writes an entry down, under the next number.
    pub(super) fn write(&mut self, entry: JournalEntry) {
        if self.entries.len() == MAX_JOURNAL {
            self.entries.pop_front();
        }
        self.written += 1;
        self.entries.push_back(JournalEntry { number: self.written, ..entry });
    }

    pub(super) fn entries(&self) -> Vec<JournalEntry> {
        self.entries.iter().cloned().collect()
    }
}

/// A path as it may be written down: the words of the documented routes and short numbers. Anything else might be a key,
/// or a part of one.
pub(super) fn shown_path(path: &str) -> String {
    const WORDS: [&str; 8] = ["", "*", "api", "v1", "stores", "customers", "orders", "products"];
    let is_number =
        |segment: &str| segment.len() <= MAX_SEGMENT && segment.bytes().all(|byte| byte.is_ascii_digit());
    let mut segments = path.split('/');
    let known: Vec<&str> = segments
        .by_ref()
        .take(MAX_SEGMENTS)
        .map(|segment| if WORDS.contains(&segment) || is_number(segment) { segment } else { "…" })
        .collect();
    let rest = if segments.next().is_some() { "/…" } else { "" };
    known.join("/") + rest
}

/// A method as it may be written down.
pub(super) fn shown_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| method == known).unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_might_be_a_key_in_a_path_or_a_method_is_not_shown() {
        assert_eq!(shown_path("/api/v1/stores/123/customers"), "/api/v1/stores/123/customers");
        assert_eq!(shown_path("/v1/8fK2pX9mWq4Ld7Vb3Nc6Ts1Z/x"), "/v1/…/…");
        assert_eq!(shown_path("/x/8fK2pX9mWq4L/7Vb3Nc6Ts1Z/orders"), "/…/…/…/orders");
        assert_eq!(shown_path("/v1/1234567890123456/-1"), "/v1/…/…");
        assert_eq!(shown_path("*"), "*");
        assert!(shown_path(&"/a".repeat(10_000)).len() < 80);
        assert_eq!(shown_method(&Method::PATCH), "PATCH");
        assert_eq!(shown_method(&Method::from_bytes(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap()), "OTHER");
    }

    #[test]
    fn a_journal_forgets_its_oldest_entries_and_goes_on_counting() {
        let mut journal = Journal::default();
        for _ in 0..MAX_JOURNAL + 5 {
            journal.write(JournalEntry {
                number: 0,
                time: SystemTime::UNIX_EPOCH,
                method: "GET",
                path: String::new(),
                store: None,
                key: None,
                status: Some(200),
                fault: None,
            });
        }
        let entries = journal.entries();
        assert_eq!((entries.len(), entries[0].number), (MAX_JOURNAL, 6));
    }
}
