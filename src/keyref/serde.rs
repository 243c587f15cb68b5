//! A key reference in a config file, as a string.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use super::KeyRef;

impl Serialize for KeyRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for a string, `serde_json` answers a number by an error that prints it, and never asks the
        // visitor. Formats that do not describe themselves can only be asked for a string, and hold no other
        // type.
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(ReferenceVisitor)
        } else {
            deserializer.deserialize_str(ReferenceVisitor)
        }
    }
}

struct ReferenceVisitor;

/// Serde's own answer to a value of another type prints the value, which may be a key: so each kind that has
/// a value is refused here.
macro_rules! refuse {
    ($($method:ident: $value:ty),* $(,)?) => {
        $(fn $method<E: Error>(self, _: $value) -> Result<KeyRef, E> {
            Err(E::custom("a key reference is a string, such as \"env:NAME\""))
        })*
    };
}

impl Visitor<'_> for ReferenceVisitor {
    type Value = KeyRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key reference, such as \"env:NAME\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<KeyRef, E> {
        text.parse().map_err(E::custom)
    }

    refuse! {
        visit_bool: bool,
        visit_i64: i64,
        visit_i128: i128,
        visit_u64: u64,
        visit_u128: u128,
        visit_f64: f64,
        visit_bytes: &[u8],
    }
}
