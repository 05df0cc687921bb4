//! Names of roles, written as one text or as a list.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A holder has all of these roles. Empty if none is given, which is not valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleNames(pub Vec<String>);

impl From<&str> for RoleNames {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl fmt::Display for RoleNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Serialize for RoleNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [] => "".serialize(serializer),
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RoleNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RoleNamesVisitor)
    }
}

struct RoleNamesVisitor;

impl<'de> Visitor<'de> for RoleNamesVisitor {
    type Value = RoleNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a role or a list of roles")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<RoleNames, E> {
        Ok(if text.is_empty() { RoleNames::default() } else { text.into() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<RoleNames, A::Error> {
        let mut found = Vec::new();
        while let Some(name) = names.next_element()? {
            found.push(name);
        }
        Ok(RoleNames(found))
    }
}

impl JsonSchema for RoleNames {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RoleNames".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}
