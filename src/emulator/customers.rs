//! The customers that were written, and what a request to write one must look like.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::key::StoreId;

/// How many customers an emulator keeps; then the one that was new the longest ago is forgotten.
///
/// ```
/// assert_eq!(keysheath::emulator::MAX_CUSTOMERS, 100_000);
/// ```
pub const MAX_CUSTOMERS: usize = 100_000;

/// The longest text in a field, in characters. Kanal documents none.
const MAX_TEXT: usize = 255;

/// A customer as it was last written.
///
/// ```
/// use keysheath::emulator::{Emulator, OWN_STORE};
///
/// let emulator = Emulator::start()?;
/// ureq::post(format!("{}/api/v1/stores/123/customers", emulator.origin()))
///     .header("authorization", format!("Bearer {}", emulator.key().expose_secret()))
///     .header("content-type", "application/json")
///     .send(r#"{ "phone": "+33612345678", "first_name": "Test" }"#)?;
/// assert_eq!(emulator.customers(OWN_STORE)[0].phone, "+33612345678");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Customer {
    /// Its number, from 1.
    pub id: u64,
    /// The telephone number, by which it is found again.
    pub phone: String,
    /// The first name.
    pub first_name: Option<String>,
    /// The last name.
    pub last_name: Option<String>,
    /// The address for e-mail.
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
    /// Reads the fields.
    ///
    /// # Errors
    /// What is wrong with each field, in the shape of Kanal's `errors`. No text holds what was sent.
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
    /// Writes a customer; fields that the request leaves out keep what they had. Also whether it is a new one.
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

    /// In the order in which they were new.
    pub(super) fn of(&self, store: StoreId) -> Vec<Customer> {
        let own = self.by_id.values().filter(|(other, _)| *other == store);
        own.map(|(_, customer)| customer.clone()).collect()
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
        assert!(customers.of(StoreId::new(7).unwrap()).is_empty());
    }
}
