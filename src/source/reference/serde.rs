//! A key reference in a config file, as a string.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};

use super::{KeyRef, KeyRefError};

impl Serialize for KeyRef {
    /// Fails for a value that is not a reference: nothing of its text was kept.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.problem() {
            None => serializer.collect_str(self),
            Some(problem) => Err(S::Error::custom(problem)),
        }
    }
}

impl<'de> Deserialize<'de> for KeyRef {
    /// Never fails because of a value, which may be a key: a parser prints the line that an error is about. A
    /// value that is not a reference is reported when it is used.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // If a string is requested and the value is a number, `serde_json` returns an error that prints it,
        // without calling the visitor. Formats that do not describe themselves need the request for a string,
        // and hold no other type.
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(ReferenceVisitor)
        } else {
            deserializer.deserialize_str(ReferenceVisitor)
        }
    }
}

struct ReferenceVisitor;

/// Each kind of value except a string.
macro_rules! is_no_text {
    ($($method:ident: $value:ty),* $(,)?) => {
        $(fn $method<E>(self, _: $value) -> Result<KeyRef, E> {
            Ok(KeyRef::invalid(KeyRefError::NotText))
        })*
    };
}

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = KeyRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key reference, such as \"env:NAME\"")
    }

    fn visit_str<E>(self, text: &str) -> Result<KeyRef, E> {
        Ok(KeyRef::from_text(text))
    }

    is_no_text! {
        visit_bool: bool,
        visit_i64: i64,
        visit_i128: i128,
        visit_u64: u64,
        visit_u128: u128,
        visit_f64: f64,
        visit_bytes: &[u8],
    }

    fn visit_unit<E>(self) -> Result<KeyRef, E> {
        Ok(KeyRef::invalid(KeyRefError::NotText))
    }

    fn visit_none<E>(self) -> Result<KeyRef, E> {
        Ok(KeyRef::invalid(KeyRefError::NotText))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<KeyRef, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(KeyRef::invalid(KeyRefError::NotText))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeyRef, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(KeyRef::invalid(KeyRefError::NotText))
    }
}
