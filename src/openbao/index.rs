//! How far a server was when it answered: `X-Vault-Index`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;

/// What a server said of its state.
pub(super) struct Index {
    header: HeaderValue,
    /// The cluster, and how far it was. `None` where it is of another form: then which of two is the newer is not known.
    state: Option<(String, u64)>,
}

/// What OpenBao 2.7 writes, in base64.
#[derive(Deserialize)]
struct Form {
    cluster: String,
    value: String,
}

impl Index {
    pub(super) fn new(header: HeaderValue) -> Self {
        let state = STANDARD.decode(header.as_bytes()).ok().and_then(|json| {
            let Form { cluster, value } = serde_json::from_slice(&json).ok()?;
            Some((cluster, value.parse().ok()?))
        });
        Self { header, state }
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Whether it is surely newer: of the same cluster, and further.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            (Some((cluster, value)), Some((other, than))) => cluster == other && value > than,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(json: &str) -> Index {
        Index::new(HeaderValue::from_str(&STANDARD.encode(json)).unwrap())
    }

    #[test]
    fn one_is_newer_only_where_that_is_sure() {
        let of = |cluster, value| index(&format!(r#"{{"cluster":"{cluster}","value":"{value}"}}"#));
        assert!(of("a", 38).is_newer_than(&of("a", 9)) && !of("a", 9).is_newer_than(&of("a", 38)));
        assert!(!of("a", 9).is_newer_than(&of("a", 9)) && !of("b", 38).is_newer_than(&of("a", 9)));
        for other in [index("v1:a:38"), index(r#"{"cluster":"a"}"#), index(r#"{"cluster":"a","value":"x"}"#)]
        {
            assert!(!of("a", 38).is_newer_than(&other) && !other.is_newer_than(&of("a", 1)));
        }
        // As a real server has written it.
        let real = "eyJjbHVzdGVyIjoiMGEwODE0ZTAtNGJlMC1iMzExLTY5OGMtYjIxYjQ5YzdjNDA2IiwidmFsdWUiOiIzOCJ9";
        assert_eq!(Index::new(HeaderValue::from_static(real)).state.unwrap().1, 38);
    }
}
