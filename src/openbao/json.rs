//! What OpenBao answers and is sent, in JSON. What may be secret is taken as it is written, so that no copy
//! of it is made that is not wiped: the parser would copy a text with escapes, and one in the place of a
//! number.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::OpenBaoError;
use crate::internal::bytes::{WipedBytes, append_json_text};

pub(super) use crate::internal::json_form::{read, text};

/// Answers that are not there, and why; also of the status 400 and 403.
pub(super) struct Errors<'a> {
    /// Each of them a text.
    pub(super) errors: Option<Vec<&'a RawValue>>,
    pub(super) data: Option<Metadata>,
}

#[derive(Deserialize)]
struct ErrorsForm<'a> {
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
    #[serde(default)]
    data: Option<Metadata>,
}

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) metadata: Stamp,
}

/// Which version a secret is.
#[derive(Deserialize)]
pub(super) struct Stamp {
    #[serde(default)]
    pub(super) version: u64,
    pub(super) created_time: String,
    #[serde(default)]
    pub(super) deletion_time: String,
    #[serde(default)]
    pub(super) destroyed: bool,
}

#[derive(Deserialize)]
pub(super) struct Answer<T> {
    pub(super) data: T,
}

/// What a secret holds, and its version.
#[derive(Deserialize)]
pub(super) struct Data<'a> {
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    pub(super) metadata: Stamp,
}

#[derive(Deserialize)]
pub(super) struct AllMetadata {
    pub(super) current_version: u64,
    #[serde(default)]
    pub(super) versions: BTreeMap<String, Stamp>,
}

#[derive(Deserialize)]
pub(super) struct Mount {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) options: Option<MountOptions>,
}

#[derive(Deserialize)]
pub(super) struct MountOptions {
    #[serde(default)]
    pub(super) version: Option<String>,
}

/// What a login or a renewal answers.
pub(super) struct Auth<'a> {
    token: &'a RawValue,
    pub(super) lease_duration: u64,
    pub(super) is_renewable: bool,
}

#[derive(Deserialize)]
struct LoggedIn<'a> {
    #[serde(borrow)]
    auth: &'a RawValue,
}

#[derive(Deserialize)]
struct AuthForm<'a> {
    #[serde(borrow)]
    client_token: &'a RawValue,
    #[serde(borrow)]
    lease_duration: &'a RawValue,
    #[serde(borrow, default)]
    renewable: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Lookup {
    #[serde(default)]
    pub(super) ttl: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

impl<'a> Errors<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let form: ErrorsForm<'_> = read(body)?;
        let errors = match form.errors {
            None => None,
            Some(errors) => {
                let is_list = errors.get().starts_with('[');
                let errors: Vec<&RawValue> = is_list.then(|| serde_json::from_str(errors.get()).ok())??;
                let are_texts = errors.iter().all(|error| error.get().starts_with('"'));
                Some(are_texts.then_some(errors)?)
            }
        };
        Some(Self { errors, data: form.data })
    }
}

impl<'a> Auth<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let answer: LoggedIn<'_> = read(body)?;
        let form: AuthForm<'_> = read(answer.auth.get().as_bytes())?;
        Some(Self {
            token: form.client_token,
            lease_duration: form.lease_duration.get().parse().ok()?,
            is_renewable: form.renewable.is_some_and(|value| value.get() == "true"),
        })
    }

    pub(super) fn token(&self) -> Option<WipedBytes> {
        text(self.token)
    }
}

/// Whether one of an answer's errors has these words.
pub(super) fn says(body: &[u8], words: &str) -> bool {
    let errors = Errors::read(body).and_then(|answer| answer.errors).unwrap_or_default();
    let says = |text: &[u8]| text.windows(words.len()).any(|part| part == words.as_bytes());
    errors.into_iter().filter_map(text).any(|error| says(&error))
}

/// What a 404 with a text says; `None` where it says nothing, or is not OpenBao's.
pub(super) fn not_there(body: &[u8]) -> Option<OpenBaoError> {
    if says(body, "namespace not found") {
        return Some(OpenBaoError::NoNamespace);
    }
    match Errors::read(body) {
        Some(Errors { errors: Some(errors), .. }) if errors.is_empty() => None,
        Some(Errors { errors: None, data: Some(_) }) => None,
        Some(_) => Some(OpenBaoError::NoMount),
        None => Some(OpenBaoError::NotOpenBao { status: 404 }),
    }
}

/// What is no object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAnObject;

/// One field of an object: its value as it is written, or `None` where there is no such field.
pub(super) fn field<'a>(object: &'a RawValue, name: &str) -> Result<Option<&'a RawValue>, NotAnObject> {
    struct Find<'n>(&'n str);
    struct IsName<'n>(&'n str);

    impl Visitor<'_> for IsName<'_> {
        type Value = bool;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a name")
        }
        fn visit_str<E>(self, name: &str) -> Result<bool, E> {
            Ok(name == self.0)
        }
    }
    impl<'de> serde::de::DeserializeSeed<'de> for IsName<'_> {
        type Value = bool;
        fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
            from.deserialize_str(self)
        }
    }
    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(is_it) = map.next_key_seed(IsName(self.0))? {
                if is_it {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object.get());
    serde::Deserializer::deserialize_map(&mut reader, Find(name)).map_err(|_| NotAnObject)
}

/// An object of texts that are printable ASCII, in a block that does not grow.
pub(super) fn object(fields: &[(&str, &[u8])]) -> WipedBytes {
    let length: usize = fields.iter().map(|(name, value)| name.len() + value.len() * 2 + 6).sum();
    let mut object = WipedBytes::with_capacity(length + 2);
    object.push(b'{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            object.push(b',');
        }
        append_json_text(&mut object, name.as_bytes());
        object.push(b':');
        append_json_text(&mut object, value);
    }
    object.push(b'}');
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name_only() {
        let find = |json: &str, name: &str| {
            let object: &RawValue = serde_json::from_str(json).unwrap();
            field(object, name).map(|found| found.map(|value| value.get().to_owned()))
        };
        let json = r#"{"a":"key","key":{"b":[1]},"k\u0065y2":"x"}"#;
        assert_eq!(find(json, "key"), Ok(Some(r#"{"b":[1]}"#.into())));
        assert_eq!(find(json, "key2"), Ok(Some(r#""x""#.into())));
        assert_eq!(find(json, "b"), Ok(None));
        for not_an_object in ["[]", "null", "\"key\"", "1"] {
            assert_eq!(find(not_an_object, "key"), Err(NotAnObject));
        }
    }

    #[test]
    fn an_error_is_read_in_any_escaping_and_only_from_text() {
        let count =
            |body: &str| Errors::read(body.as_bytes()).map(|said| said.errors.map(|errors| errors.len()));
        assert_eq!(count(r#"{"errors":["a","b\"\u0041"]}"#), Some(Some(2)));
        assert_eq!(count(r#"{"errors":null}"#), Some(None));
        assert_eq!(count("{}"), Some(None));
        for body in [r#"{"errors":"a"}"#, r#"{"errors":[1]}"#, r#"{"errors":{"a":"b"}}"#, r#"["a"]"#] {
            assert_eq!(count(body), None, "{body}");
        }
    }

    #[test]
    fn an_object_is_written_so_that_it_is_read_again() {
        let written = object(&[("role_id", b"a\"b\\c"), ("jwt", b"x")]);
        let read: BTreeMap<String, String> = serde_json::from_slice(&written).unwrap();
        assert_eq!(read["role_id"], "a\"b\\c");
        assert_eq!(read["jwt"], "x");
        assert_eq!(&*object(&[]), b"{}");
    }
}
