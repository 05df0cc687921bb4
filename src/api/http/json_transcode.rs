//! Converts the JSON of a message to its protobuf encoding, field by field, without a tree of values in between. So the
//! memory that a message takes is about its length, whatever it contains.
//!
//! `prost_reflect` reads each value: it knows the JSON mapping of every type.

use std::borrow::Cow;
use std::fmt;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::model::limits;

use super::json_payload::ENTRIES_MAX;
use super::query::UnknownFields;

/// Appends the encoding of a message to `out`. Fields that are given twice are errors.
pub struct MessageSeed<'a> {
    pub descriptor: &'a MessageDescriptor,
    pub unknown: UnknownFields,
    pub out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { descriptor, unknown, out } = self;
        // At most one for each field of the message.
        let (mut seen, mut oneofs) = (Vec::new(), Vec::new());
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let field = descriptor.get_field_by_json_name(&key).or_else(|| descriptor.get_field_by_name(&key));
            let Some(field) = field else {
                if unknown.within(descriptor) == UnknownFields::Refused {
                    return Err(Error::custom(format_args!("unrecognized field name '{key}'")));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&field.number()) {
                return Err(Error::custom(format_args!("duplicate field '{key}'")));
            }
            seen.push(field.number());
            let before = out.len();
            map.next_value_seed(FieldSeed { field: &field, unknown, out })?;
            if let Some(oneof) = field.containing_oneof().filter(|_| out.len() > before) {
                let name = oneof.name().to_owned();
                if oneofs.contains(&name) {
                    return Err(Error::custom(format_args!("multiple fields provided for oneof '{name}'")));
                }
                oneofs.push(name);
            }
        }
        Ok(())
    }
}

/// The value of a field; `null` stands for a missing one.
struct FieldSeed<'a> {
    field: &'a FieldDescriptor,
    unknown: UnknownFields,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { field, unknown, out } = self;
        if field.is_map() {
            deserializer.deserialize_map(EntriesVisitor { field, unknown, out })
        } else if field.is_list() {
            deserializer.deserialize_seq(ListVisitor { field, unknown, out })
        } else {
            ValueSeed { field, container: Container::None, unknown, out }.deserialize(deserializer)
        }
    }
}

struct ListVisitor<'a> {
    field: &'a FieldDescriptor,
    unknown: UnknownFields,
    out: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { field, unknown, out } = self;
        // A message of a few bytes takes hundreds in the service.
        let max = if matches!(field.kind(), Kind::Message(_)) { limits::BATCH_TASKS_MAX } else { usize::MAX };
        let mut count = 0;
        while list.next_element_seed(ValueSeed { field, container: Container::List, unknown, out })?.is_some() {
            count += 1;
            if count > max {
                return Err(Error::custom(format_args!("more than {max} {}", field.json_name())));
            }
        }
        Ok(())
    }
}

struct EntriesVisitor<'a> {
    field: &'a FieldDescriptor,
    unknown: UnknownFields,
    out: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for EntriesVisitor<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { field, unknown, out } = self;
        let mut count = 0;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            count += 1;
            if count > ENTRIES_MAX {
                return Err(Error::custom(format_args!("more than {ENTRIES_MAX} {}", field.json_name())));
            }
            map.next_value_seed(ValueSeed { field, container: Container::Map(&key), unknown, out })?;
        }
        Ok(())
    }
}

/// What a value is in.
#[derive(Clone, Copy)]
enum Container<'a> {
    None,
    List,
    /// With its key.
    Map(&'a str),
}

/// One value of a field.
struct ValueSeed<'a> {
    field: &'a FieldDescriptor,
    container: Container<'a>,
    unknown: UnknownFields,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { field, container, unknown, out } = self;
        match (field.kind(), container) {
            // The JSON of payloads was moved before, unless other clients could not read it.
            (Kind::Message(message), _) if message.full_name() == "google.protobuf.Value" => {
                IgnoredAny::deserialize(deserializer)?;
                Err(Error::custom("a string has half a pair of surrogates, such as `\\ud800` alone"))
            }
            (Kind::Message(message), Container::None | Container::List)
                if message.package_name() != "google.protobuf" =>
            {
                let mut part = Vec::new();
                MessageSeed { descriptor: &message, unknown, out: &mut part }.deserialize(deserializer)?;
                encode_key(field.number(), WireType::LengthDelimited, out);
                encode_varint(part.len() as u64, out);
                out.append(&mut part);
                Ok(())
            }
            _ => {
                let only = Only { name: field.json_name(), container, value: deserializer };
                let options = DeserializeOptions::new().deny_unknown_fields(true);
                let message = DynamicMessage::deserialize_with_options(field.parent_message().clone(), only, &options)?;
                message.encode(out).map_err(Error::custom)
            }
        }
    }
}

/// A message with one value of one field.
struct Only<'a, D> {
    name: &'a str,
    container: Container<'a>,
    value: D,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Only<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_map(OnlyEntry { name: Some(self.name), value: Some((self.container, self.value)) })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

struct OnlyEntry<'a, D> {
    name: Option<&'a str>,
    value: Option<(Container<'a>, D)>,
}

impl<'de, D: Deserializer<'de>> MapAccess<'de> for OnlyEntry<'_, D> {
    type Error = D::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, D::Error> {
        let name = self.name.take().map(str::to_owned);
        name.map(|name| seed.deserialize(StringDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, D::Error> {
        match self.value.take() {
            Some((Container::None, value)) => seed.deserialize(value),
            Some((Container::List, value)) => seed.deserialize(OnlyElement(Some(value))),
            Some((Container::Map(name), value)) => seed.deserialize(Only { name, container: Container::None, value }),
            None => Err(Error::custom("a value is read twice")),
        }
    }
}

/// A list with one element.
struct OnlyElement<D>(Option<D>);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OnlyElement<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_seq(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> SeqAccess<'de> for OnlyElement<D> {
    type Error = D::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, D::Error> {
        self.0.take().map(|value| seed.deserialize(value)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::proto::v1;

    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap());

    fn descriptor(name: &str) -> MessageDescriptor {
        POOL.get_message_by_name(&format!("lineshaft.v1.{name}")).unwrap()
    }

    fn transcode(name: &str, json: &str) -> Result<Vec<u8>, String> {
        let (mut out, mut json) = (Vec::new(), serde_json::Deserializer::from_str(json));
        let seed = MessageSeed { descriptor: &descriptor(name), unknown: UnknownFields::Refused, out: &mut out };
        seed.deserialize(&mut json).map_err(|error| error.to_string())?;
        Ok(out)
    }

    #[test]
    fn every_kind_of_field_is_transcoded() {
        for (name, json) in [
            ("SubmitTaskRequest", "{}"),
            (
                "SubmitTaskRequest",
                r#"{"handler":"x","payload":{"data":"AQID","contentType":"a/b"},"labels":{"a":"1","b":""},"args":["","y"],
                "timeout":"1.5s","priority":"PRIORITY_HIGH","display_name":"n","delay":null,"atMostOnce":true}"#,
            ),
            ("SubmitTaskRequest", r#"{"priority":2,"retry":{"maxAttempts":3,"maxDelay":"3s","jitter":0.0}}"#),
            ("BatchSubmitTasksRequest", r#"{"tasks":[{"handler":"x"},{},{"args":["1"]}],"batchId":"b"}"#),
            (
                "ListTasksRequest",
                r#"{"filter":{"taskIds":["a","b"],"states":["TASK_STATE_QUEUED",3],
                "submittedAfter":"2026-01-02T03:04:05.6Z"},"pageSize":"7","includeResults":true}"#,
            ),
        ] {
            let encoded = transcode(name, json).unwrap_or_else(|error| panic!("{json}: {error}"));
            let transcoded = DynamicMessage::decode(descriptor(name), &encoded[..]).unwrap();
            // With a tree of values.
            let mut tree = serde_json::Deserializer::from_str(json);
            let expected = DynamicMessage::deserialize(descriptor(name), &mut tree).unwrap();
            assert!(transcoded == expected, "{json}: {transcoded}");
        }
    }

    #[test]
    fn what_the_mapping_does_not_allow_is_an_error_with_a_position() {
        for (json, expected) in [
            (r#"{"tusk":1}"#, "unrecognized field name 'tusk' at line 1 column 7"),
            (r#"{"handler":"x","handler":"y"}"#, "duplicate field 'handler' at line 1 column 24"),
            (r#"{"payload":{"data":"","tusk":1}}"#, "unrecognized field name 'tusk'"),
            (r#"{"priority":"HUGE"}"#, "unrecognized enum value 'HUGE'"),
            (r#"{"handler":[]}"#, "invalid type"),
            (r#"{"args":{}}"#, "invalid type"),
            (r#"{"args":[1]}"#, "invalid type"),
            (r#"{"labels":{"a":1}}"#, "invalid type"),
            (r#"{"payload":[]}"#, "invalid type"),
            (r#"{"payload":{"json":[1]}}"#, "half a pair of surrogates"),
        ] {
            let error = transcode("SubmitTaskRequest", json).unwrap_err();
            assert!(error.contains(expected) && error.contains("line 1"), "{json}: {error}");
        }
    }

    #[test]
    fn the_encoding_of_many_small_parts_is_shorter_than_their_json_and_their_number_is_limited() {
        let batch = |count: usize| format!(r#"{{"tasks":[{}{{}}]}}"#, r#"{"handler":""},"#.repeat(count - 1));
        let json = batch(limits::BATCH_TASKS_MAX);
        let encoded = transcode("BatchSubmitTasksRequest", &json).unwrap();
        assert!(encoded.len() < json.len());
        assert_eq!(v1::BatchSubmitTasksRequest::decode(&encoded[..]).unwrap().tasks.len(), 10_000);
        let error = transcode("BatchSubmitTasksRequest", &batch(10_001)).unwrap_err();
        assert!(error.contains("more than 10000 tasks"), "{error}");
    }
}
