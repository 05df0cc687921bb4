//! Values of cells, and their text.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::calendar;
use super::decimal::Decimal;

/// The value of a cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Decimal(Decimal<'a>),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// Days since 1970-01-01; the extremes are the infinities of PostgreSQL.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01T00:00:00, in UTC if it is an instant; the extremes are the infinities of PostgreSQL.
    Timestamp {
        micros: i64,
        is_instant: bool,
    },
    Uuid([u8; 16]),
    /// A JSON text without line breaks.
    Json(Cow<'a, str>),
}

impl Value<'_> {
    /// Whether it is shown as a number, aligned to the right.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Float(_) | Self::Decimal(_))
    }

    /// Appends the text of the value, which is empty for null. Only that of a text or of JSON can contain quotation marks,
    /// commas, white space or control characters.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Integer(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
            Self::Float(value) => write_float(*value, out),
            Self::Decimal(value) => value.write_text(out),
            Self::Text(text) | Self::Json(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bytes(bytes) => {
                let start = out.len();
                out.resize(start + bytes.len().div_ceil(3) * 4, 0);
                let written = BASE64_STANDARD.encode_slice(bytes, &mut out[start..]);
                debug_assert_eq!(written.ok(), Some(out.len() - start));
            }
            Self::Date(days) => calendar::write_date(*days, out),
            Self::Time(micros) => calendar::write_time(*micros, out),
            Self::Timestamp { micros, is_instant } => calendar::write_timestamp(*micros, *is_instant, out),
            Self::Uuid(bytes) => write_uuid(bytes, out),
        }
    }
}

/// In JSON, line breaks occur only between tokens.
pub(super) fn on_one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

/// The shortest text that is read as the same number.
fn write_float(value: f64, out: &mut Vec<u8>) {
    let text = match value {
        _ if value.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => return out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes()),
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_uuid(bytes: &[u8; 16], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
pub(super) fn text_of(value: &Value<'_>) -> String {
    let mut out = Vec::new();
    value.write_text(&mut out);
    String::from_utf8(out).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_written_with_as_few_digits_as_identify_it() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (9_007_199_254_740_993.0, "9007199254740992.0"),
            (1e300, "1e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text_of(&Value::Float(value)), text);
        }
    }

    #[test]
    fn binary_values_are_written_as_base64_and_uuids_as_groups_of_hexadecimal_digits() {
        for (bytes, text) in [(&b""[..], ""), (b"a", "YQ=="), (b"abc", "YWJj"), (&[255, 0, 10, 34], "/wAKIg==")] {
            assert_eq!(text_of(&Value::Bytes(bytes)), text);
        }
        let uuid = *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x00\x01\x02\x03\x04\x05\x06\xff";
        assert_eq!(text_of(&Value::Uuid(uuid)), "12345678-9abc-def0-0001-0203040506ff");
    }
}
