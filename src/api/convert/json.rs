//! Converts `google.protobuf.Value` to JSON text.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// Maximum nesting of lists and objects. Each level is two protobuf messages, and protobuf decoders allow 100.
const DEPTH_MAX: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonValueError {
    #[error("is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    #[error("contains NaN or an infinite number, which JSON does not support")]
    NotFinite,
}

/// Returns the JSON text of a value. Whole numbers have no fraction.
pub fn to_text(value: &Value) -> Result<Vec<u8>, JsonValueError> {
    let json = convert(value, 0)?;
    Ok(json.to_string().into_bytes())
}

fn convert(value: &Value, depth: usize) -> Result<serde_json::Value, JsonValueError> {
    if depth > DEPTH_MAX {
        return Err(JsonValueError::TooDeep);
    }
    Ok(match value.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(flag)) => (*flag).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::NumberValue(number)) => number_value(*number)?,
        Some(Kind::ListValue(ListValue { values })) => {
            values.iter().map(|value| convert(value, depth + 1)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Some(Kind::StructValue(Struct { fields })) => {
            let entries = fields.iter().map(|(key, value)| Ok((key.clone(), convert(value, depth + 1)?)));
            serde_json::Value::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}

fn number_value(number: f64) -> Result<serde_json::Value, JsonValueError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Ok((number as i64).into());
    }
    serde_json::Number::from_f64(number).map(Into::into).ok_or(JsonValueError::NotFinite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_written_without_a_fraction() {
        let number = |n: f64| String::from_utf8(to_text(&Value { kind: Some(Kind::NumberValue(n)) }).unwrap()).unwrap();
        assert_eq!(number(5_000_000.0), "5000000");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(-3.0), "-3");
        assert_eq!(number(9_007_199_254_740_992.0), "9007199254740992");
        assert_eq!(number(1e20).parse(), Ok(1e20));
    }

    #[test]
    fn nan_and_infinite_numbers_are_rejected() {
        for number in [f64::NAN, f64::INFINITY] {
            let inner = Value { kind: Some(Kind::NumberValue(number)) };
            let list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![inner] })) };
            assert_eq!(to_text(&list), Err(JsonValueError::NotFinite));
        }
    }

    #[test]
    fn strings_are_escaped() {
        let text_value = Value { kind: Some(Kind::StringValue("a\"b\n".to_owned())) };
        let fields = [("k".to_owned(), text_value), ("n".to_owned(), Value { kind: None })].into();
        let object = Value { kind: Some(Kind::StructValue(Struct { fields })) };
        assert_eq!(to_text(&object).unwrap(), br#"{"k":"a\"b\n","n":null}"#);
    }

    #[test]
    fn a_deeply_nested_value_is_rejected() {
        let mut value = Value { kind: Some(Kind::BoolValue(true)) };
        for _ in 0..60 {
            value = Value { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
        }
        assert_eq!(to_text(&value), Err(JsonValueError::TooDeep));
    }
}
