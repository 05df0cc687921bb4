//! Exit codes in their written form: `"75"` or `"64-78"`.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text_or_integer;

/// An exit code other than 0, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCodes {
    first: u8,
    last: u8,
}

impl ExitCodes {
    /// `EX_TEMPFAIL` of `sysexits.h`: the user is invited to try again later.
    pub(super) const TEMPORARY: Self = Self { first: 75, last: 75 };

    fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "{text:?} is not an exit code; write one such as 65, 1 to 255, or a range such as \"64-78\""
            )),
        }
    }

    pub(super) fn range(self) -> RangeInclusive<i32> {
        self.first.into()..=self.last.into()
    }
}

impl fmt::Display for ExitCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Serialize for ExitCodes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExitCodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer::deserialize(deserializer, "an exit code such as 65, or a range such as \"64-78\"", Self::parse)
    }
}

impl JsonSchema for ExitCodes {
    fn schema_name() -> Cow<'static, str> {
        "ExitCodes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An exit code such as 65, or a range such as \"64-78\".",
            "type": ["string", "integer"],
            "pattern": "^[0-9]+( *- *[0-9]+)?$",
            "minimum": 1,
            "maximum": 255
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_numbers_or_ranges() {
        for (text, first, last) in [("75", 75, 75), ("64-78", 64, 78), ("1 - 255", 1, 255)] {
            let codes = ExitCodes::parse(text).unwrap();
            assert_eq!(codes.range(), first..=last);
            assert_eq!(ExitCodes::parse(&codes.to_string()), Ok(codes));
        }
        for bad in ["0", "256", "-1", "", "-", "78-64", "0-5", "1-2-3", "x"] {
            assert!(ExitCodes::parse(bad).is_err(), "{bad}");
        }
    }
}
