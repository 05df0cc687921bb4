//! Durations and byte sizes in their written form: `"30s"`, `"256MiB"`, or plain numbers.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A duration: `"5m"`, `"1h30m"`, or a number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// Parses the written form. The error describes what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(seconds) = text.parse::<f64>() {
            return Self::from_seconds(seconds);
        }
        humantime::parse_duration(text).map(Self).map_err(|error| {
            format!("{text:?} is not a duration ({error}); write \"30s\", \"5m\" or a number of seconds")
        })
    }

    fn from_seconds(seconds: f64) -> Result<Self, String> {
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|error| format!("{seconds} seconds: {error}"))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Exact, so that a dumped configuration has the same values. humantime would write 40 days with fractional months.
        let (seconds, nanos) = (self.0.as_secs(), u64::from(self.0.subsec_nanos()));
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (nanos / 1_000_000, "ms"),
            (nanos / 1_000 % 1_000, "us"),
            (nanos % 1_000, "ns"),
        ];
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        parts.into_iter().filter(|(amount, _)| *amount > 0).try_for_each(|(amount, unit)| write!(f, "{amount}{unit}"))
    }
}

/// A size in bytes: `"64MiB"`, `"1GB"`, or a number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Names and factors. `Display` uses the first unit that divides the size.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Parses the written form. Units are binary (`KiB`) or decimal (`KB`), in upper or lower case. The error
    /// describes what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim());
        let bad = || format!("{text:?} is not a size; write \"64MiB\", \"1GB\" or a number of bytes");
        let number: u64 = number.parse().map_err(|_| bad())?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(bad)?;
        number.checked_mul(*factor).map(Self).ok_or_else(|| format!("{text:?} is larger than {} bytes", u64::MAX))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&UNITS[UNITS.len() - 1]);
        write!(f, "{}{name}", self.0 / factor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\" or a number of seconds")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        HumanDuration::parse(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<HumanDuration, E> {
        Ok(HumanDuration(Duration::from_secs(seconds)))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<HumanDuration, E> {
        let seconds = u64::try_from(seconds).map_err(|_| E::custom(format!("{seconds} seconds is negative")))?;
        self.visit_u64(seconds)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<HumanDuration, E> {
        HumanDuration::from_seconds(seconds).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration such as \"30s\", \"5m\" or \"1h30m\", or a number of seconds.",
            "type": ["string", "number"],
            "minimum": 0
        })
    }
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64MiB\" or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        ByteSize::parse(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(format!("{bytes} bytes is negative")))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size such as \"64MiB\" or \"1GB\", or a number of bytes.",
            "type": ["string", "integer"],
            "minimum": 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (text, millis) in [("30s", 30_000), ("1h 30m", 5_400_000), ("7d", 604_800_000), ("2", 2_000), ("0.5", 500)]
        {
            assert_eq!(HumanDuration::parse(text), Ok(HumanDuration(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "soon", "-1", "5 parsecs", "nan", "inf"] {
            assert!(HumanDuration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_or_decimal_units_in_any_case() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1 gb", 1_000_000_000), ("7", 7), ("0B", 0), ("2kib", 2048)] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "5 apples", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_size_and_duration_is_parsed_from_its_own_text(bytes: u64, millis in 0_u64..1 << 50) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
            let span = HumanDuration(Duration::from_millis(millis));
            prop_assert_eq!(HumanDuration::parse(&span.to_string()), Ok(span));
        }
    }
}
