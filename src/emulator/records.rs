//! What an emulator serves and remembers: products, customers, the journal and the windows of the rate limit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Map, Value, json};

use super::fault::Seeded;
use crate::key::{Fingerprint, StoreId};

/// The number of products.
const PRODUCTS: usize = 120;

/// A product. The same seed gives the same products.
#[derive(Debug)]
pub(super) struct Product {
    id: u64,
    name: String,
    sku: String,
}

impl Product {
    pub(super) fn list(seed: u64) -> Vec<Self> {
        const WHAT: [&str; 8] = ["Table", "Chair", "Lamp", "Shelf", "Bench", "Stool", "Desk", "Frame"];
        let mut random = Seeded::new(seed, 3);
        let made = (1..=PRODUCTS as u64).zip(WHAT.iter().cycle()).map(|(id, what)| {
            let number = random.next() % 100_000;
            Self {
                id,
                name: format!("{what} {id}"),
                sku: format!("{}-{number:05}", what.to_ascii_uppercase()),
            }
        });
        made.collect()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "id": self.id, "name": self.name, "type": "product", "variants": [{ "sku": self.sku }] })
    }
}

/// The most customers; one more replaces the oldest.
const MAX_CUSTOMERS: usize = 100_000;

/// The longest text in a field, in characters. Kanal documents no limit.
const MAX_TEXT: usize = 255;

/// A customer as it was last written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Customer {
    /// The number, from 1.
    pub id: u64,
    /// The telephone number, which identifies a customer of a store.
    pub phone: String,
    /// The first name.
    pub first_name: Option<String>,
    /// The last name.
    pub last_name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
}

impl Customer {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "phone": self.phone,
            "first_name": self.first_name,
            "last_name": self.last_name,
            "email": self.email,
        })
    }
}

/// The fields of a request, checked.
#[derive(Debug)]
pub(super) struct Fields {
    phone: String,
    first_name: Option<String>,
    last_name: Option<String>,
    email: Option<String>,
}

impl Fields {
    /// Reads the fields, or says what is wrong with each in the shape of Kanal's `errors`. No text holds what
    /// was sent.
    pub(super) fn read(body: &Value) -> Result<Self, Map<String, Value>> {
        let mut errors = Map::new();
        let Some(body) = body.as_object() else {
            errors.insert("body".to_owned(), json!(["The body must be a JSON object."]));
            return Err(errors);
        };
        let mut text = |name: &str| match body.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.chars().count() <= MAX_TEXT => Some(text.clone()),
            Some(Value::String(_)) => {
                errors.insert(name.to_owned(), json!([format!("The {name} has more than 255 characters.")]));
                None
            }
            Some(_) => {
                errors.insert(name.to_owned(), json!([format!("The {name} must be a string.")]));
                None
            }
        };
        let (phone, email) = (text("phone"), text("email"));
        let (first_name, last_name) = (text("first_name"), text("last_name"));
        if email.as_ref().is_some_and(|email| !email.contains('@')) {
            errors.insert("email".to_owned(), json!(["The email must be an e-mail address."]));
        }
        match phone {
            Some(phone) if is_e164(&phone) && errors.is_empty() => {
                Ok(Self { phone, first_name, last_name, email })
            }
            Some(phone) if is_e164(&phone) => Err(errors),
            found => {
                let why = match found {
                    None => "The phone is required.",
                    Some(_) => "The phone must be in the E.164 form, such as +33612345678.",
                };
                errors.entry("phone").or_insert_with(|| json!([why]));
                Err(errors)
            }
        }
    }
}

/// `+` and 8 to 15 digits, of which the first is not 0.
fn is_e164(phone: &str) -> bool {
    phone.strip_prefix('+').is_some_and(|digits| {
        (8..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The customers of every store.
#[derive(Debug, Default)]
pub(super) struct Customers {
    by_id: BTreeMap<u64, (StoreId, Customer)>,
    by_phone: HashMap<(StoreId, String), u64>,
    made: u64,
}

impl Customers {
    /// Writes a customer and says whether it is new. Fields that the request leaves out keep their value.
    pub(super) fn upsert(&mut self, store: StoreId, fields: Fields) -> (Customer, bool) {
        let place = (store, fields.phone.clone());
        let known = self.by_phone.get(&place).and_then(|id| self.by_id.get_mut(id));
        if let Some((_, customer)) = known {
            customer.first_name = fields.first_name.or(customer.first_name.take());
            customer.last_name = fields.last_name.or(customer.last_name.take());
            customer.email = fields.email.or(customer.email.take());
            return (customer.clone(), false);
        }
        if self.by_id.len() == MAX_CUSTOMERS
            && let Some((_, (store, oldest))) = self.by_id.pop_first()
        {
            self.by_phone.remove(&(store, oldest.phone));
        }
        self.made += 1;
        let Fields { phone, first_name, last_name, email } = fields;
        let customer = Customer { id: self.made, phone, first_name, last_name, email };
        self.by_phone.insert(place, self.made);
        self.by_id.insert(self.made, (store, customer.clone()));
        (customer, true)
    }

    /// In the order of creation.
    pub(super) fn in_store(&self, store: StoreId) -> Vec<Customer> {
        let own = self.by_id.values().filter(|(other, _)| *other == store);
        own.map(|(_, customer)| customer.clone()).collect()
    }
}

/// The most entries of a journal; one more replaces the oldest.
const MAX_JOURNAL: usize = 10_000;

/// The longest number in a path that is shown, in bytes. Keys of both issuers are longer.
const MAX_SEGMENT: usize = 15;

/// The most segments of a path that are shown.
const MAX_SEGMENTS: usize = 12;

/// One request and its answer, without headers, query and bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// The number, from 1, in the order in which requests were answered.
    pub number: u64,
    /// When it was answered, by the emulator's clock.
    pub time: SystemTime,
    /// The method, or `OTHER` if HTTP does not define it.
    pub method: &'static str,
    /// The path. A segment that is neither a word of a documented route nor a number of at most 15 digits is
    /// shown as `…`, because it might be a key.
    pub path: String,
    /// The store that the path names.
    pub store: Option<StoreId>,
    /// The fingerprint of the key that was sent, if it is one of the emulator's.
    pub key: Option<Fingerprint>,
    /// The status that was sent; `None` if the connection ended first.
    pub status: Option<u16>,
    /// The number of the fault rule that was applied.
    pub fault: Option<u64>,
}

/// The last [`MAX_JOURNAL`] requests.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<JournalEntry>,
    written: u64,
}

impl Journal {
    /// Adds an entry under the next number.
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

/// A path as it may be shown: the words of the documented routes and short numbers. Anything else might be a
/// key, or a part of one.
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

/// A method as it may be shown.
pub(super) fn shown_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| method == known).unwrap_or("OTHER")
}

/// The requests of a window that both issuers document: Kanal for each store, Katana for each key.
pub(super) const RATE_LIMIT: u32 = 60;

/// The length of a window. A minute (Kanal) and 60 seconds (Katana) are documented. It starts with the first
/// request in it: that is not documented, but is what the framework does whose messages Kanal sends.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// Counts requests for each store or key. Windows that are over are removed when there are many.
#[derive(Debug)]
pub(super) struct RateLimiter<T> {
    windows: HashMap<T, Window>,
    /// From this number of windows on, those that are over are removed.
    many: usize,
}

/// The least value of `many`.
const MANY: usize = 1024;

#[derive(Debug)]
struct Window {
    start: SystemTime,
    taken: u32,
}

/// Whether a request is within the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    Allowed {
        /// How many more requests this window allows.
        remaining: u32,
    },
    Refused {
        /// Until the next window, in whole seconds, rounded up; at least 1.
        retry_after: u64,
    },
}

impl<T: Eq + Hash> RateLimiter<T> {
    pub(super) fn new() -> Self {
        Self { windows: HashMap::new(), many: MANY }
    }

    pub(super) fn take(&mut self, metered: T, now: SystemTime) -> Allowance {
        if self.windows.len() >= self.many {
            self.windows
                .retain(|_, window| now.duration_since(window.start).unwrap_or_default() < RATE_WINDOW);
            self.many = MANY.max(self.windows.len() * 2);
        }
        let window = self.windows.entry(metered).or_insert(Window { start: now, taken: 0 });
        // A clock that was set back counts as stopped.
        let mut elapsed = now.duration_since(window.start).unwrap_or_default();
        if elapsed >= RATE_WINDOW {
            *window = Window { start: now, taken: 0 };
            elapsed = Duration::ZERO;
        }
        if window.taken == RATE_LIMIT {
            let wait = RATE_WINDOW.saturating_sub(elapsed);
            let retry_after = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            return Allowance::Refused { retry_after };
        }
        window.taken += 1;
        Allowance::Allowed { remaining: RATE_LIMIT - window.taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_telephone_number_is_a_plus_and_8_to_15_digits() {
        for good in ["+33612345678", "+12345678", "+123456789012345"] {
            assert!(is_e164(good), "{good}");
        }
        for bad in [
            "",
            "+",
            "33612345678",
            "+1234567",
            "+1234567890123456",
            "+0612345678",
            "+3361234567x",
            "+٣٣٦١٢٣٤",
        ] {
            assert!(!is_e164(bad), "{bad}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body = json!({ "phone": 7, "first_name": ["x"], "last_name": null, "email": "nobody" });
        let errors = Fields::read(&body).unwrap_err();
        assert_eq!(errors.keys().collect::<Vec<_>>(), ["email", "first_name", "phone"]);
    }

    #[test]
    fn writing_a_customer_again_keeps_what_is_left_out() {
        let store = StoreId::new(123).unwrap();
        let mut customers = Customers::default();
        let fields = |value: Value| Fields::read(&value).unwrap();
        let body = json!({ "phone": "+33612345678", "first_name": "A", "email": "a@b.example" });
        assert!(customers.upsert(store, fields(body)).1);
        let (customer, is_new) =
            customers.upsert(store, fields(json!({ "phone": "+33612345678", "first_name": "B" })));
        assert!(!is_new);
        assert_eq!(
            (customer.first_name.as_deref(), customer.email.as_deref()),
            (Some("B"), Some("a@b.example"))
        );
        assert!(customers.in_store(StoreId::new(7).unwrap()).is_empty());
    }

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

    #[test]
    fn windows_that_are_over_are_removed() {
        let mut limiter = RateLimiter::new();
        for key in 0..20_000_u64 {
            limiter.take(key, SystemTime::UNIX_EPOCH + Duration::from_secs(key));
        }
        assert!(limiter.windows.len() <= MANY, "{} windows", limiter.windows.len());
    }

    #[test]
    fn a_window_allows_60_requests_and_the_next_one_60_more() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut limiter = RateLimiter::new();
        for taken in 1..=60 {
            assert_eq!(limiter.take("a", at(500)), Allowance::Allowed { remaining: 60 - taken });
        }
        assert_eq!(limiter.take("a", at(500)), Allowance::Refused { retry_after: 60 });
        assert_eq!(limiter.take("a", at(51_400)), Allowance::Refused { retry_after: 10 });
        assert_eq!(limiter.take("a", at(60_499)), Allowance::Refused { retry_after: 1 });
        assert_eq!(limiter.take("b", at(60_499)), Allowance::Allowed { remaining: 59 });
        assert_eq!(limiter.take("a", at(60_500)), Allowance::Allowed { remaining: 59 });
        assert_eq!(limiter.take("a", at(0)), Allowance::Allowed { remaining: 58 }, "a clock that went back");
    }
}
