//! Values in the binary format of PostgreSQL.

use std::borrow::Cow;
use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::runners::export::decimal::Decimal;
use crate::runners::export::error::ExportError;
use crate::runners::export::request::Scalar;
use crate::runners::export::value::{Value, on_one_line};

/// Days from 1970-01-01 to 2000-01-01, the epoch of PostgreSQL.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 10_957 * 86_400_000_000;

/// How a column is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    Instant,
    Uuid,
    Json,
    Jsonb,
}

impl Decoder {
    pub fn of(column: &Type) -> Self {
        Self::exact(column).unwrap_or(Self::Text)
    }

    fn exact(column: &Type) -> Option<Self> {
        Some(match *column {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID => Self::Oid,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::NUMERIC => Self::Numeric,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::XML | Type::UNKNOWN => Self::Text,
            Type::BYTEA => Self::Bytes,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::Instant,
            Type::UUID => Self::Uuid,
            Type::JSON => Self::Json,
            Type::JSONB => Self::Jsonb,
            _ if matches!(column.kind(), Kind::Enum(_)) => Self::Text,
            _ => return None,
        })
    }

    /// What is selected for a column of this type: the server converts the types that have no decoder.
    pub fn expression(column: &Type) -> &'static str {
        match column.kind() {
            _ if Self::exact(column).is_some() => "{}",
            Kind::Array(_) | Kind::Composite(_) => "to_json({})",
            _ if *column == Type::MONEY => "{}::numeric",
            _ => "{}::text",
        }
    }

    pub fn value(self, raw: Option<Raw<'_>>) -> Result<Value<'_>, ExportError> {
        let Some(Raw(bytes)) = raw else { return Ok(Value::Null) };
        self.decode(bytes).ok_or_else(|| {
            ExportError::Query(format!("the server sent a value of {} bytes that is not of type {self:?}", bytes.len()))
        })
    }

    fn decode(self, bytes: &[u8]) -> Option<Value<'_>> {
        Some(match self {
            Self::Bool => Value::Bool(*bytes.first()? != 0),
            Self::Int2 => Value::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int4 => Value::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int8 => Value::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Oid => Value::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Float4 => {
                let value = f32::from_be_bytes(bytes.try_into().ok()?);
                // The number with the same digits, rather than the same bits.
                Value::Float(if value.is_finite() { value.to_string().parse().ok()? } else { value.into() })
            }
            Self::Float8 => Value::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Numeric => Value::Decimal(Decimal::from_postgres(bytes)?),
            Self::Text => Value::Text(String::from_utf8_lossy(bytes)),
            Self::Bytes => Value::Bytes(bytes),
            Self::Date => {
                let days = i32::from_be_bytes(bytes.try_into().ok()?);
                let is_infinite = days == i32::MAX || days == i32::MIN;
                Value::Date(if is_infinite { days } else { days.checked_add(EPOCH_DAYS)? })
            }
            Self::Time => Value::Time(i64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Timestamp | Self::Instant => {
                let micros = i64::from_be_bytes(bytes.try_into().ok()?);
                let is_infinite = micros == i64::MAX || micros == i64::MIN;
                let micros = if is_infinite { micros } else { micros.checked_add(EPOCH_MICROS)? };
                Value::Timestamp { micros, is_instant: self == Self::Instant }
            }
            Self::Uuid => Value::Uuid(bytes.try_into().ok()?),
            Self::Json => json(bytes),
            // The first byte is the version.
            Self::Jsonb => json(bytes.get(1..)?),
        })
    }
}

fn json(bytes: &[u8]) -> Value<'_> {
    Value::Json(match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => on_one_line(text),
        repaired @ Cow::Owned(_) => on_one_line(&repaired).into_owned().into(),
    })
}

/// The bytes of a value of any type.
pub struct Raw<'a>(pub &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A value of the payload as a text, which the server converts to the type of the parameter.
#[derive(Debug)]
pub struct Bound<'a>(pub &'a Scalar);

impl ToSql for Bound<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Scalar::Text(text) => out.extend_from_slice(text.as_bytes()),
            Scalar::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Scalar::Float(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Scalar::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runners::export::value::text_of;

    #[test]
    fn values_are_read_from_their_bytes() {
        for (decoder, bytes, text) in [
            (Decoder::Int2, &(-2_i16).to_be_bytes()[..], "-2"),
            (Decoder::Oid, &u32::MAX.to_be_bytes(), "4294967295"),
            (Decoder::Float4, &0.1_f32.to_be_bytes(), "0.1"),
            (Decoder::Date, &9_830_i32.to_be_bytes(), "2026-11-30"),
            (Decoder::Date, &i32::MAX.to_be_bytes(), "infinity"),
            (Decoder::Timestamp, &(-1_i64).to_be_bytes(), "1999-12-31T23:59:59.999999"),
            (Decoder::Instant, &0_i64.to_be_bytes(), "2000-01-01T00:00:00Z"),
            (Decoder::Instant, &i64::MIN.to_be_bytes(), "-infinity"),
            (Decoder::Jsonb, b"\x01{\"a\": 1}", "{\"a\": 1}"),
            (Decoder::Json, b"[1,\n2]", "[1, 2]"),
        ] {
            assert_eq!(text_of(&decoder.value(Some(Raw(bytes))).unwrap()), text);
        }
        assert_eq!(Decoder::Int4.value(None).unwrap(), Value::Null);
        assert!(Decoder::Int4.value(Some(Raw(b"12"))).is_err());
    }

    #[test]
    fn the_server_converts_types_that_have_no_decoder() {
        for (column, expression) in [
            (Type::TIMESTAMPTZ, "{}"),
            (Type::INT4_ARRAY, "to_json({})"),
            (Type::MONEY, "{}::numeric"),
            (Type::INTERVAL, "{}::text"),
            (Type::INT4_RANGE, "{}::text"),
        ] {
            assert_eq!(Decoder::expression(&column), expression);
        }
    }
}
