//! Fault rules as the control plane reads and writes them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::fault::{Fault, FaultId, FaultRule};
use crate::key::StoreId;

/// The fields of a rule.
pub(super) const FIELDS: &[&str] = &["fault", "key", "store", "route", "nth", "times", "probability"];

/// Reads a rule. An error says which field is wrong, and holds nothing of it.
pub(super) fn read(body: &Map<String, Value>) -> Result<FaultRule, &'static str> {
    let mut rule = FaultRule::new(read_fault(body.get("fault").unwrap_or(&Value::Null))?);
    if let Some(key) = body.get("key") {
        let key = key.as_str().and_then(|text| text.parse().ok());
        rule = rule.for_key(key.ok_or("key is a key's number: 8 hexadecimal digits in a text")?);
    }
    if let Some(store) = body.get("store") {
        let store = store.as_u64().and_then(StoreId::new);
        rule = rule.for_store(store.ok_or("store is a positive number")?);
    }
    if let Some(route) = body.get("route") {
        rule = rule.for_route(route.as_str().ok_or("route is a text")?);
    }
    if let Some(nth) = body.get("nth") {
        rule = rule.nth(nth.as_u64().ok_or("nth is a number from 1")?);
    }
    if let Some(times) = body.get("times") {
        rule = rule.times(times.as_u64().ok_or("times is a number")?);
    }
    if let Some(probability) = body.get("probability") {
        rule = rule.with_probability(probability.as_f64().ok_or("probability is a number from 0 to 1")?);
    }
    Ok(rule)
}

fn read_fault(fault: &Value) -> Result<Fault, &'static str> {
    const WHAT: &str = "fault is \"reset\", \"truncated_body\", { \"latency_ms\": 200 } or \
                        { \"status\": 503, \"retry_after\": 2, \"body\": \"…\" }";
    match fault {
        Value::String(name) if name == "reset" => Ok(Fault::Reset),
        Value::String(name) if name == "truncated_body" => Ok(Fault::TruncatedBody),
        Value::Object(fields) if fields.contains_key("latency_ms") && fields.len() == 1 => {
            let millis = fields.get("latency_ms").and_then(Value::as_u64).ok_or("latency_ms is a number")?;
            Ok(Fault::Latency(Duration::from_millis(millis)))
        }
        Value::Object(fields) => {
            let known = ["status", "retry_after", "body"];
            if !fields.contains_key("status") || !fields.keys().all(|name| known.contains(&name.as_str())) {
                return Err(WHAT);
            }
            let status = fields.get("status").and_then(Value::as_u64);
            let status = status.and_then(|number| u16::try_from(number).ok());
            let mut fault = Fault::status(status.ok_or("status is a number from 200 to 599")?);
            if let Some(seconds) = fields.get("retry_after") {
                let seconds = seconds.as_u64().and_then(|number| u32::try_from(number).ok());
                fault = fault.with_retry_after(seconds.ok_or("retry_after is a number of seconds")?);
            }
            if let Some(body) = fields.get("body") {
                fault = fault.with_body(body.as_str().ok_or("body is a text")?);
            }
            Ok(fault)
        }
        _ => Err(WHAT),
    }
}

/// Writes a rule that is in force.
pub(super) fn write(id: FaultId, rule: &FaultRule, applied: u64) -> Value {
    let fault = match &rule.fault {
        Fault::Reset => json!("reset"),
        Fault::TruncatedBody => json!("truncated_body"),
        Fault::Latency(time) => json!({ "latency_ms": u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }),
        Fault::Status { status, retry_after, body } => {
            json!({ "status": status, "retry_after": retry_after, "body": body })
        }
    };
    json!({
        "id": id.0,
        "fault": fault,
        "key": rule.key.map(|key| key.to_string()),
        "store": rule.store.map(StoreId::get),
        "route": rule.route,
        "nth": rule.first,
        "times": rule.times,
        "probability": rule.probability,
        "applied": applied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<FaultRule, &'static str> {
        read(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap())
    }

    #[test]
    fn a_rule_is_read_as_it_would_be_built() {
        let text = r#"{ "fault": { "status": 503, "retry_after": 2, "body": "x" }, "key": "00000001",
                        "store": 123, "route": "/v1/*", "nth": 3, "times": 2, "probability": 0.5 }"#;
        let built = FaultRule::new(Fault::status(503).with_retry_after(2).with_body("x"))
            .for_key("00000001".parse().unwrap())
            .for_store(StoreId::new(123).unwrap())
            .for_route("/v1/*")
            .nth(3)
            .times(2)
            .with_probability(0.5);
        assert_eq!(read_text(text), Ok(built));
        for (text, fault) in [
            (r#"{ "fault": "reset" }"#, Fault::Reset),
            (r#"{ "fault": "truncated_body" }"#, Fault::TruncatedBody),
            (r#"{ "fault": { "latency_ms": 20 } }"#, Fault::Latency(Duration::from_millis(20))),
        ] {
            assert_eq!(read_text(text), Ok(FaultRule::new(fault)));
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "{}",
            r#"{ "fault": "explode" }"#,
            r#"{ "fault": 7 }"#,
            r#"{ "fault": {} }"#,
            r#"{ "fault": { "status": 503, "latency_ms": 7 } }"#,
            r#"{ "fault": { "status": 70000 } }"#,
            r#"{ "fault": { "status": 503, "retry_after": -1 } }"#,
            r#"{ "fault": { "status": 503, "body": {} } }"#,
            r#"{ "fault": "reset", "key": "all" }"#,
            r#"{ "fault": "reset", "store": 0 }"#,
            r#"{ "fault": "reset", "nth": "first" }"#,
            r#"{ "fault": "reset", "times": -1 }"#,
            r#"{ "fault": "reset", "route": 7 }"#,
            r#"{ "fault": "reset", "probability": "often" }"#,
        ] {
            assert!(read_text(text).is_err(), "{text}");
        }
    }
}
