//! `google.protobuf.Value` to JSON text.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// Deeper values are refused, as protobuf itself does at 100 messages.
const DEPTH_MAX: usize = 50;

/// Why a value has no JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoText {
    /// Lists and objects within each other.
    #[error("is nested too deeply, at most {DEPTH_MAX} levels are allowed")]
    TooDeep,
    /// NaN or infinite.
    #[error("has a number that is not finite, which JSON cannot say")]
    NotFinite,
}

/// The JSON text of a value; whole numbers without a fraction.
///
/// # Errors
/// [`NoText`].
pub fn text(value: &Value) -> Result<Vec<u8>, NoText> {
    let json = convert(value, 0)?;
    Ok(json.to_string().into_bytes())
}

fn convert(value: &Value, depth: usize) -> Result<serde_json::Value, NoText> {
    if depth > DEPTH_MAX {
        return Err(NoText::TooDeep);
    }
    Ok(match value.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(flag)) => (*flag).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::NumberValue(number)) => number_of(*number)?,
        Some(Kind::ListValue(ListValue { values })) => {
            values.iter().map(|value| convert(value, depth + 1)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Some(Kind::StructValue(Struct { fields })) => {
            let entries = fields.iter().map(|(key, value)| Ok((key.clone(), convert(value, depth + 1)?)));
            serde_json::Value::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}

fn number_of(number: f64) -> Result<serde_json::Value, NoText> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Ok((number as i64).into());
    }
    serde_json::Number::from_f64(number).map(Into::into).ok_or(NoText::NotFinite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction_and_others_keep_theirs() {
        let number = |n: f64| String::from_utf8(text(&Value { kind: Some(Kind::NumberValue(n)) }).unwrap()).unwrap();
        assert_eq!(number(5_000_000.0), "5000000");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(-3.0), "-3");
        assert_eq!(number(9_007_199_254_740_992.0), "9007199254740992");
        assert_eq!(number(1e20).parse(), Ok(1e20));
    }

    #[test]
    fn numbers_that_json_cannot_say_are_refused_wherever_they_are() {
        for number in [f64::NAN, f64::INFINITY] {
            let inner = Value { kind: Some(Kind::NumberValue(number)) };
            let list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![inner] })) };
            assert_eq!(text(&list), Err(NoText::NotFinite));
        }
    }

    #[test]
    fn objects_and_texts_are_escaped() {
        let text_value = Value { kind: Some(Kind::StringValue("a\"b\n".to_owned())) };
        let fields = [("k".to_owned(), text_value), ("n".to_owned(), Value { kind: None })].into();
        let object = Value { kind: Some(Kind::StructValue(Struct { fields })) };
        assert_eq!(text(&object).unwrap(), br#"{"k":"a\"b\n","n":null}"#);
    }

    #[test]
    fn a_value_that_is_nested_too_deeply_is_refused() {
        let mut value = Value { kind: Some(Kind::BoolValue(true)) };
        for _ in 0..60 {
            value = Value { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
        }
        assert_eq!(text(&value), Err(NoText::TooDeep));
    }
}
