//! `google.protobuf.Value` to JSON text.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// Deeper values are refused, as protobuf itself does at 100 messages.
const DEPTH_MAX: usize = 50;

/// The JSON text of a value; whole numbers without a fraction. `None` when it is nested too deeply.
pub fn text(value: &Value) -> Option<Vec<u8>> {
    let json = convert(value, 0)?;
    serde_json::to_vec(&json).ok()
}

fn convert(value: &Value, depth: usize) -> Option<serde_json::Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match value.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(flag)) => (*flag).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::NumberValue(number)) => number_of(*number),
        Some(Kind::ListValue(ListValue { values })) => {
            values.iter().map(|value| convert(value, depth + 1)).collect::<Option<Vec<_>>>()?.into()
        }
        Some(Kind::StructValue(Struct { fields })) => {
            let entries = fields.iter().map(|(key, value)| Some((key.clone(), convert(value, depth + 1)?)));
            serde_json::Value::Object(entries.collect::<Option<_>>()?)
        }
    })
}

fn number_of(number: f64) -> serde_json::Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return (number as i64).into();
    }
    // Not finite has no JSON; null is what JavaScript says as well.
    serde_json::Number::from_f64(number).map_or(serde_json::Value::Null, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction_and_others_keep_theirs() {
        let number = |n: f64| String::from_utf8(text(&Value { kind: Some(Kind::NumberValue(n)) }).unwrap()).unwrap();
        assert_eq!(number(5_000_000.0), "5000000");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(f64::NAN), "null");
    }

    #[test]
    fn a_value_that_is_nested_too_deeply_is_refused() {
        let mut value = Value { kind: Some(Kind::BoolValue(true)) };
        for _ in 0..60 {
            value = Value { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
        }
        assert_eq!(text(&value), None);
    }
}
