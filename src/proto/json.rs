//! Encodes messages as JSON by the JSON mapping of protobuf. Fields with default values are included.
//!
//! One addition: the data of a payload with a JSON content type is written as a JSON value in the field `json`, if it
//! is valid JSON. Its exact text is copied, so that numbers keep all digits and objects their order.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
};
use serde::de::{Error as _, IgnoredAny};
use serde_json::Error;
use serde_json::value::RawValue;

use super::v1::{Payload, SubmitTaskRequest, payload};

/// The message whose data is written as JSON.
pub const PAYLOAD: &str = "lineshaft.v1.Payload";

/// Encodes a message of the contract.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_message<M: Message + Name>(message: &M) -> Result<Vec<u8>, Error> {
    let encoded = message.encode_to_vec();
    encode(&DynamicMessage::decode(descriptor::<M>()?, encoded.as_slice()).map_err(Error::custom)?)
}

/// Decodes a submission. The JSON text of its payload is kept as it is, since decoding could lose digits.
///
/// # Errors
/// The text is not JSON, or does not match the message.
pub fn decode_submission(text: &str) -> Result<SubmitTaskRequest, Error> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
    let payload = match fields.get("payload") {
        Some(payload) => json_payload(payload)?,
        None => None,
    };
    if payload.is_some() {
        fields.remove("payload");
    }
    let mut task: SubmitTaskRequest = decode(&serde_json::to_string(&fields)?)?;
    task.payload = payload.or(task.payload);
    Ok(task)
}

/// The payload, if it is given as a JSON value.
fn json_payload(text: &RawValue) -> Result<Option<Payload>, Error> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text.get())?;
    let Some(value) = fields.remove("json") else { return Ok(None) };
    if !is_json(value.get()) {
        return Err(Error::custom("payload.json: a string has half a pair of surrogates"));
    }
    let mut payload: Payload = decode(&serde_json::to_string(&fields)?)?;
    if payload.kind.is_some() {
        return Err(Error::custom("payload: has both json and data"));
    }
    payload.kind = Some(payload::Kind::Data(value.get().to_owned().into()));
    if payload.content_type.is_empty() {
        "application/json".clone_into(&mut payload.content_type);
    }
    Ok(Some(payload))
}

fn decode<M: Message + Name + Default>(text: &str) -> Result<M, Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(descriptor::<M>()?, &mut parser)?;
    parser.end()?;
    message.transcode_to().map_err(Error::custom)
}

fn descriptor<M: Name>() -> Result<MessageDescriptor, Error> {
    static CONTRACT: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(super::DESCRIPTORS).unwrap_or_default());
    let name = M::full_name();
    let descriptor = CONTRACT.get_message_by_name(&name);
    descriptor.ok_or_else(|| Error::custom(format_args!("{name} is not in the contract")))
}

/// # Errors
/// A timestamp or duration is outside the range of the JSON mapping.
pub fn encode(message: &DynamicMessage) -> Result<Vec<u8>, Error> {
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
    let json_text = if descriptor.full_name() == PAYLOAD { json_text(message) } else { None };
    let mut separator = b'{';
    for field in descriptor.fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        out.push(separator);
        separator = b',';
        if let (Some(text), "data") = (&json_text, field.name()) {
            out.extend_from_slice(b"\"json\":");
            out.extend_from_slice(text);
            continue;
        }
        write_string(out, field.json_name())?;
        out.push(b':');
        write_value(out, &message.get_field(&field), &field.kind())?;
    }
    if separator == b'{' {
        out.push(separator);
    }
    out.push(b'}');
    Ok(())
}

/// Returns the data of a payload if its content type is JSON and the data is valid JSON.
fn json_text(message: &DynamicMessage) -> Option<Vec<u8>> {
    let content_type = message.get_field_by_name("content_type")?;
    let data = message.get_field_by_name("data")?;
    let (Value::String(content_type), Value::Bytes(data)) = (&*content_type, &*data) else { return None };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return None;
    }
    let text = std::str::from_utf8(data).ok().filter(|text| is_json(text))?;
    Some(text.trim().as_bytes().to_vec())
}

/// Whether a text is JSON whose strings every client can read.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() && !has_lone_surrogate(text.as_bytes())
}

/// Whether an escape in a string of this JSON text is half of a pair of surrogates. Many parsers refuse it.
fn has_lone_surrogate(json: &[u8]) -> bool {
    let unit = |at: usize| {
        let escape = json.get(at..at + 6).filter(|escape| escape.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(found) = json[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        at += match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => return true,
            Some(_) => 6,
            None => 2,
        };
    }
    false
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
                write_string(out, key)?;
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
                Some(name) => write_string(out, name.name())?,
                None => out.extend_from_slice(number.to_string().as_bytes()),
            }
        }
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::I32(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::U32(number) => out.extend_from_slice(number.to_string().as_bytes()),
        // Strings, because many JSON parsers read numbers as doubles, which cannot represent all 64-bit integers.
        Value::I64(number) => write_string(out, &number.to_string())?,
        Value::U64(number) => write_string(out, &number.to_string())?,
        Value::F32(number) => write_number(out, f64::from(*number))?,
        Value::F64(number) => write_number(out, *number)?,
        Value::String(text) => write_string(out, text)?,
        Value::Bytes(bytes) => {
            use base64::prelude::{BASE64_STANDARD, Engine};
            write_string(out, &BASE64_STANDARD.encode(bytes))?;
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

fn write_string(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    serde_json::to_writer(out, text)
}

/// Writes whole numbers without a fraction.
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
    use serde_json::{Value as Json, json as value};

    use super::*;
    use crate::proto::v1;

    fn encoded(name: &str, message: &impl Message) -> (String, DynamicMessage) {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
        let descriptor = pool.get_message_by_name(name).unwrap();
        let message = DynamicMessage::decode(descriptor, &message.encode_to_vec()[..]).unwrap();
        (String::from_utf8(encode(&message).unwrap()).unwrap(), message)
    }

    fn payload(data: &str, content_type: &str) -> Payload {
        let kind = Some(payload::Kind::Data(data.to_owned().into()));
        Payload { kind, content_type: content_type.to_owned() }
    }

    #[test]
    fn json_with_half_a_pair_of_surrogates_is_not_json() {
        for text in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#"{"\u00e4":["\n\uD83D\uDE00"]}"#, "1e400"] {
            assert!(is_json(text), "{text}");
        }
        for text in [r#""\ud800""#, r#""\udc00\ud800""#, r#"{"\uDfff":1}"#, r#""\ud800\n""#, "tru", r#""\u12""#] {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn default_values_are_included_and_unset_messages_are_not() {
        let (text, _) = encoded("lineshaft.v1.PoolMetrics", &v1::PoolMetrics::default());
        let json: Json = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["busy"], &json["queued"], &json["workers"]), (&value!(0), &value!("0"), &value!([])));
        assert_eq!((&json["paused"], &json["successRate"]), (&value!(false), &value!(0)));
        assert!(json.get("oldestWait").is_none());
    }

    /// The serializer of prost-reflect is slower and does not know payloads. For everything else both must agree.
    #[test]
    fn every_kind_of_value_is_encoded_like_prost_reflect_does() {
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
        let (text, message) = encoded("lineshaft.v1.Task", &task);
        let ours: Json = serde_json::from_str(&text).unwrap();
        let options = SerializeOptions::new().skip_default_fields(false);
        let theirs = message.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
        // serde_json distinguishes 0 and 0.0, which are the same number in JSON.
        assert_eq!(ours.to_string(), theirs.to_string().replace(".0,", ",").replace(".0}", "}"));
    }

    #[test]
    fn json_data_is_encoded_as_json_with_all_digits() {
        let exact = r#" {"z":12345678901234567890.5,"a":[1, 2]} "#;
        let (text, _) = encoded("lineshaft.v1.Payload", &payload(exact, "application/json; charset=utf-8"));
        let expected =
            r#"{"json":{"z":12345678901234567890.5,"a":[1, 2]},"contentType":"application/json; charset=utf-8"}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn invalid_json_data_is_encoded_as_base64() {
        for (data, content_type) in [
            ("{\"a\":", "application/json"),
            ("1 2", "application/json"),
            ("", "application/json"),
            ("1", "application/octet-stream"),
            (&"[".repeat(100_000), "application/json"),
        ] {
            let (text, _) = encoded("lineshaft.v1.Payload", &payload(data, content_type));
            assert!(text.starts_with("{\"data\":\""), "{text}");
        }
        let raw = Payload { kind: None, content_type: "application/json".to_owned() };
        assert_eq!(encoded("lineshaft.v1.Payload", &raw).0, r#"{"contentType":"application/json"}"#);
    }
}
