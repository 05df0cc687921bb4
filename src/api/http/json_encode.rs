//! Messages as JSON for people and programs, as the protobuf JSON mapping has it, defaults included.
//!
//! One thing more: bytes that say they are JSON, and are, are shown as the JSON value that they are. The
//! text goes through as it came, so no number loses a digit and no object its order.

use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, SerializeOptions, Value};
use serde::de::IgnoredAny;
use serde_json::Error;

use super::json_payload::PAYLOAD;

/// The JSON text of a message.
///
/// # Errors
/// It has a moment or a span that the mapping cannot say.
pub fn json(message: &DynamicMessage) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(256);
    write_message(&mut out, message)?;
    Ok(out)
}

fn write_message(out: &mut Vec<u8>, message: &DynamicMessage) -> Result<(), Error> {
    let descriptor = message.descriptor();
    if descriptor.package_name() == "google.protobuf" {
        let options = SerializeOptions::new().skip_default_fields(false);
        return message.serialize_with_options(&mut serde_json::Serializer::new(out), &options);
    }
    let inside = if descriptor.full_name() == PAYLOAD { json_inside(message) } else { None };
    let mut separator = b'{';
    for field in descriptor.fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        out.push(separator);
        separator = b',';
        if let (Some(text), "data") = (&inside, field.name()) {
            out.extend_from_slice(b"\"json\":");
            out.extend_from_slice(text);
            continue;
        }
        write_text(out, field.json_name())?;
        out.push(b':');
        write_value(out, &message.get_field(&field), &field.kind())?;
    }
    if separator == b'{' {
        out.push(separator);
    }
    out.push(b'}');
    Ok(())
}

/// The text of a payload that is what it says: JSON.
fn json_inside(message: &DynamicMessage) -> Option<Vec<u8>> {
    let content_type = message.get_field_by_name("content_type")?;
    let data = message.get_field_by_name("data")?;
    let (Value::String(content_type), Value::Bytes(data)) = (&*content_type, &*data) else { return None };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return None;
    }
    let text = std::str::from_utf8(data).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    Some(text.trim().as_bytes().to_vec())
}

fn write_value(out: &mut Vec<u8>, value: &Value, kind: &Kind) -> Result<(), Error> {
    match value {
        Value::List(values) => {
            let mut separator = b'[';
            for value in values {
                out.push(separator);
                separator = b',';
                write_value(out, value, kind)?;
            }
            if values.is_empty() {
                out.push(b'[');
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            let kind_of_value = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let mut entries: Vec<_> = entries.iter().map(|(key, value)| (key_text(key), value)).collect();
            entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            let mut separator = b'{';
            for (key, value) in &entries {
                out.push(separator);
                separator = b',';
                write_text(out, key)?;
                out.push(b':');
                write_value(out, value, kind_of_value.as_ref().unwrap_or(kind))?;
            }
            if entries.is_empty() {
                out.push(b'{');
            }
            out.push(b'}');
        }
        Value::Message(message) => write_message(out, message)?,
        Value::EnumNumber(number) => {
            let name = kind.as_enum().and_then(|kind| kind.get_value(*number));
            match name {
                Some(name) => write_text(out, name.name())?,
                None => out.extend_from_slice(number.to_string().as_bytes()),
            }
        }
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::I32(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::U32(number) => out.extend_from_slice(number.to_string().as_bytes()),
        // Texts, because a double, which is what many JSON parsers read, cannot hold all of them.
        Value::I64(number) => write_text(out, &number.to_string())?,
        Value::U64(number) => write_text(out, &number.to_string())?,
        Value::F32(number) => write_number(out, f64::from(*number))?,
        Value::F64(number) => write_number(out, *number)?,
        Value::String(text) => write_text(out, text)?,
        Value::Bytes(bytes) => {
            use base64::prelude::{BASE64_STANDARD, Engine};
            write_text(out, &BASE64_STANDARD.encode(bytes))?;
        }
    }
    Ok(())
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    serde_json::to_writer(out, text)
}

/// Whole numbers without a fraction.
fn write_number(out: &mut Vec<u8>, number: f64) -> Result<(), Error> {
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
    match number {
        _ if number.is_nan() => out.extend_from_slice(b"\"NaN\""),
        f64::INFINITY => out.extend_from_slice(b"\"Infinity\""),
        f64::NEG_INFINITY => out.extend_from_slice(b"\"-Infinity\""),
        _ if number.fract() == 0.0 && number.abs() < 9e15 => {
            out.extend_from_slice((number as i64).to_string().as_bytes());
        }
        _ => serde_json::to_writer(out, &number)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_reflect::DescriptorPool;
    use serde_json::{Value as Json, json as value};

    use super::*;
    use crate::proto::v1;

    fn shown(name: &str, message: &impl Message) -> (String, DynamicMessage) {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        let descriptor = pool.get_message_by_name(name).unwrap();
        let message = DynamicMessage::decode(descriptor, &message.encode_to_vec()[..]).unwrap();
        (String::from_utf8(json(&message).unwrap()).unwrap(), message)
    }

    fn payload(data: &str, content_type: &str) -> v1::Payload {
        let kind = Some(v1::payload::Kind::Data(data.to_owned().into()));
        v1::Payload { kind, content_type: content_type.to_owned() }
    }

    #[test]
    fn defaults_are_shown_and_what_is_unset_is_not() {
        let (text, _) = shown("lineshaft.v1.PoolMetrics", &v1::PoolMetrics::default());
        let shown: Json = serde_json::from_str(&text).unwrap();
        assert_eq!((&shown["busy"], &shown["queued"], &shown["workers"]), (&value!(0), &value!("0"), &value!([])));
        assert_eq!((&shown["paused"], &shown["successRate"]), (&value!(false), &value!(0)));
        assert!(shown.get("oldestWait").is_none(), "a message that is unset");
    }

    /// The library's own writer is slower and knows nothing of payloads; in all else both agree.
    #[test]
    fn every_kind_of_value_is_written_as_the_mapping_has_it() {
        let task = v1::Task {
            task_id: "a\"b\n\u{1}ä".to_owned(),
            priority: v1::Priority::High.into(),
            state: 77,
            labels: [("k".to_owned(), "v".to_owned()), ("a".to_owned(), String::new())].into(),
            retry: Some(v1::RetryPolicy { factor: 2.5, jitter: Some(0.0), ..v1::RetryPolicy::default() }),
            timeout: Some(prost_types::Duration { seconds: 3, nanos: 500_000_000 }),
            submitted_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 1_000 }),
            revision: u64::MAX,
            progress: f64::NAN,
            payload: Some(payload("\u{0}\u{ff}", "application/octet-stream")),
            resource_usage: Some(v1::ResourceUsage { peak_memory_bytes: Some(-1), ..v1::ResourceUsage::default() }),
            args: vec!["x".to_owned(), String::new()],
            ..v1::Task::default()
        };
        let (text, message) = shown("lineshaft.v1.Task", &task);
        let ours: Json = serde_json::from_str(&text).unwrap();
        let options = SerializeOptions::new().skip_default_fields(false);
        let theirs = message.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
        // 0 and 0.0 are one number to JSON, two to this library.
        assert_eq!(ours.to_string(), theirs.to_string().replace(".0,", ",").replace(".0}", "}"));
    }

    #[test]
    fn bytes_that_are_json_are_shown_as_json_to_the_last_digit() {
        let exact = r#" {"z":12345678901234567890.5,"a":[1, 2]} "#;
        let (text, _) = shown("lineshaft.v1.Payload", &payload(exact, "application/json; charset=utf-8"));
        let expected =
            r#"{"json":{"z":12345678901234567890.5,"a":[1, 2]},"contentType":"application/json; charset=utf-8"}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn bytes_that_only_claim_to_be_json_stay_bytes() {
        for (data, content_type) in [
            ("{\"a\":", "application/json"),
            ("1 2", "application/json"),
            ("", "application/json"),
            ("1", "application/octet-stream"),
            (&"[".repeat(100_000), "application/json"),
        ] {
            let (text, _) = shown("lineshaft.v1.Payload", &payload(data, content_type));
            assert!(text.starts_with("{\"data\":\""), "{text}");
        }
        let raw = v1::Payload { kind: None, content_type: "application/json".to_owned() };
        assert_eq!(shown("lineshaft.v1.Payload", &raw).0, r#"{"contentType":"application/json"}"#);
    }
}
