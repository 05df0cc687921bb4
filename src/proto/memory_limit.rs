//! Estimates the memory that a message takes when it is decoded, without decoding it.
//!
//! An empty message takes two bytes on the wire, but can take hundreds in memory. So the parts of a large
//! message are added up before any of them is allocated, and a message above the limit is rejected.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use super::descriptors::DESCRIPTORS;

/// Memory that the parts of one message may take, not counting the bytes of its strings.
pub(super) const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Messages up to this size cannot exceed the limit, whatever they contain, and need not be checked.
pub(super) const UNCHECKED_BYTES_MAX: usize = 128 << 10;
/// Nesting depth, the same as in the decoder.
const DEPTH_MAX: usize = 100;
/// Memory of an empty string or list.
const STRING_BYTES: usize = 24;
/// Higher than any field number of the API.
const FIELD_NUMBER_END: u32 = 256;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum LimitError {
    TooLarge,
    /// The bytes do not follow the wire format.
    Malformed,
}

/// Checks an encoded message of the type with that full name.
pub(super) fn check(name: &str, bytes: &[u8]) -> Result<(), LimitError> {
    let Some(layout) = LAYOUTS.by_name.get(name) else { return Ok(()) };
    MemoryBudget { left: MEMORY_BYTES_MAX }.charge_message(*layout, bytes, 0)
}

/// The memory layouts of all message types.
struct Layouts {
    /// Index into `all`, by full name.
    by_name: HashMap<String, usize>,
    all: Vec<Layout>,
}

static LAYOUTS: LazyLock<Layouts> = LazyLock::new(Layouts::new);

#[derive(Default)]
struct Layout {
    /// Memory of an empty message.
    empty_bytes: usize,
    /// By field number. The decoder skips unknown fields, so they take no memory.
    fields: Vec<FieldLayout>,
}

#[derive(Clone, Copy, Default)]
enum FieldLayout {
    /// Contained in the message itself, or unknown.
    #[default]
    Inline,
    Numbers,
    Strings,
    /// `layout` is an index into [`Layouts::all`].
    Message {
        layout: usize,
        repeated: bool,
    },
}

impl Layouts {
    fn new() -> Self {
        // The descriptors come from the build, and tests of the API show that they can be decoded.
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap_or_default();
        let by_name: HashMap<_, _> =
            pool.all_messages().enumerate().map(|(index, message)| (message.full_name().to_owned(), index)).collect();
        let layout = |message: MessageDescriptor| {
            let empty_bytes = empty_bytes(&message, 0) * if message.is_map_entry() { 2 } else { 1 };
            let mut fields = Vec::new();
            for field in message.fields().filter(|field| field.number() < FIELD_NUMBER_END) {
                let number = field.number() as usize;
                fields.resize(fields.len().max(number + 1), FieldLayout::Inline);
                let repeated = field.cardinality() == Cardinality::Repeated;
                fields[number] = match field.kind() {
                    Kind::Message(part) => FieldLayout::Message { layout: by_name[part.full_name()], repeated },
                    Kind::String | Kind::Bytes if repeated => FieldLayout::Strings,
                    _ if repeated => FieldLayout::Numbers,
                    _ => FieldLayout::Inline,
                };
            }
            Layout { empty_bytes, fields }
        };
        let all = pool.all_messages().map(layout).collect();
        Self { by_name, all }
    }
}

/// An upper estimate of the memory of an empty message.
fn empty_bytes(message: &MessageDescriptor, depth: usize) -> usize {
    let plain = message.fields().filter(|field| field.containing_oneof().is_none());
    let oneofs =
        message.oneofs().map(|oneof| 8 + oneof.fields().map(|field| field_bytes(&field, depth)).max().unwrap_or(0));
    8 + plain.map(|field| field_bytes(&field, depth)).sum::<usize>() + oneofs.sum::<usize>()
}

fn field_bytes(field: &FieldDescriptor, depth: usize) -> usize {
    match field.kind() {
        _ if field.is_list() || field.is_map() => STRING_BYTES,
        Kind::String | Kind::Bytes => STRING_BYTES + 8,
        // A message that contains its own type is boxed.
        Kind::Message(part) if depth < 4 => 8 + empty_bytes(&part, depth + 1),
        _ => 8,
    }
}

struct MemoryBudget {
    left: usize,
}

impl MemoryBudget {
    fn charge(&mut self, bytes: usize) -> Result<(), LimitError> {
        self.left = self.left.checked_sub(bytes).ok_or(LimitError::TooLarge)?;
        Ok(())
    }

    fn charge_message(&mut self, layout: usize, mut bytes: &[u8], depth: usize) -> Result<(), LimitError> {
        if depth > DEPTH_MAX {
            return Err(LimitError::Malformed);
        }
        let layout = &LAYOUTS.all[layout];
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let field = usize::try_from(tag >> 3).ok().and_then(|number| layout.fields.get(number).copied());
            match (tag & 7, field.unwrap_or_default()) {
                (2, field) => {
                    let length = usize::try_from(varint(&mut bytes)?).map_err(|_| LimitError::Malformed)?;
                    let (content, rest) = bytes.split_at_checked(length).ok_or(LimitError::Malformed)?;
                    bytes = rest;
                    self.charge_field(field, content, depth)?;
                }
                (0, field) => {
                    varint(&mut bytes)?;
                    self.charge(if matches!(field, FieldLayout::Numbers) { 8 } else { 0 })?;
                }
                (1, _) => bytes = bytes.get(8..).ok_or(LimitError::Malformed)?,
                (5, _) => bytes = bytes.get(4..).ok_or(LimitError::Malformed)?,
                // Groups, which the API does not use.
                _ => return Err(LimitError::Malformed),
            }
        }
        Ok(())
    }

    fn charge_field(&mut self, field: FieldLayout, content: &[u8], depth: usize) -> Result<(), LimitError> {
        match field {
            FieldLayout::Inline => Ok(()),
            FieldLayout::Numbers => self.charge(content.len().saturating_mul(8)),
            FieldLayout::Strings => self.charge(STRING_BYTES),
            FieldLayout::Message { layout, repeated } => {
                self.charge(if repeated { LAYOUTS.all[layout].empty_bytes } else { 0 })?;
                self.charge_message(layout, content, depth + 1)
            }
        }
    }
}

/// Reads a varint of 1 to 10 bytes.
fn varint(bytes: &mut &[u8]) -> Result<u64, LimitError> {
    // Most have one byte.
    if let Some((first, rest)) = bytes.split_first().filter(|(first, _)| **first < 0x80) {
        *bytes = rest;
        return Ok((*first).into());
    }
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    Err(LimitError::Malformed)
}

#[cfg(test)]
mod tests {
    use prost::{Message, Name};
    use prost_types::value::Kind as ValueKind;
    use prost_types::{ListValue, Value};

    use super::*;
    use crate::proto::v1::{BatchSubmitTasksRequest, Payload, SubmitTaskRequest, TaskFilter, payload};

    fn check_message<M: Message + Name>(message: &M) -> Result<(), LimitError> {
        check(&M::full_name(), &message.encode_to_vec())
    }

    fn with_json(kind: ValueKind) -> SubmitTaskRequest {
        let payload = Payload { kind: Some(payload::Kind::Json(Value { kind: Some(kind) })), ..Payload::default() };
        SubmitTaskRequest { handler: "compute".to_owned(), payload: Some(payload), ..SubmitTaskRequest::default() }
    }

    fn list(kind: Option<ValueKind>, count: usize) -> ValueKind {
        ValueKind::ListValue(ListValue { values: vec![Value { kind }; count] })
    }

    #[test]
    fn ordinary_requests_are_within_the_limit() {
        let mut task = with_json(list(Some(ValueKind::NumberValue(1.5)), 100));
        task.labels = (0..16).map(|n| (format!("label-{n}"), "x".repeat(60))).collect();
        task.args = vec!["an argument".to_owned(); 64];
        let batch = BatchSubmitTasksRequest { tasks: vec![task; 5_000], batch_id: "b".to_owned() };
        assert_eq!(check_message(&batch), Ok(()), "{} bytes", batch.encoded_len());
        // As many numbers as the largest payload can contain.
        assert_eq!(check_message(&with_json(list(Some(ValueKind::NumberValue(1.0)), 524_288))), Ok(()));
        let bytes = Payload { kind: Some(payload::Kind::Data(vec![7; 16 << 20].into())), ..Payload::default() };
        assert_eq!(check_message(&SubmitTaskRequest { payload: Some(bytes), ..SubmitTaskRequest::default() }), Ok(()));
    }

    fn repeated(number: u32, content: &[u8], count: usize) -> Vec<u8> {
        field(number, content).repeat(count)
    }

    fn field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::bytes::encode(number, &content.to_vec(), &mut bytes);
        bytes
    }

    #[test]
    fn messages_that_grow_when_decoded_are_rejected() {
        let json = |value: &[u8]| field(2, &field(2, value));
        let entries: Vec<u8> =
            (0..600_000_u32).flat_map(|key| field(1, &field(1, format!("{key:x}").as_bytes()))).collect();
        for (what, name, bytes) in [
            ("tasks", BatchSubmitTasksRequest::full_name(), repeated(1, &[], 300_000)),
            ("values", SubmitTaskRequest::full_name(), json(&field(6, &repeated(1, &[], 2_000_000)))),
            ("lists", SubmitTaskRequest::full_name(), json(&field(6, &repeated(1, &field(6, &[]), 2_000_000)))),
            ("objects", SubmitTaskRequest::full_name(), json(&field(5, &entries))),
            ("arguments", SubmitTaskRequest::full_name(), repeated(11, &[], 3_000_000)),
            ("ids", TaskFilter::full_name(), repeated(1, &[], 3_000_000)),
            ("states", TaskFilter::full_name(), field(4, &vec![1; 9_000_000])),
        ] {
            assert_eq!(check(&name, &bytes), Err(LimitError::TooLarge), "{what}: {} bytes", bytes.len());
        }
    }

    #[test]
    fn the_estimate_of_an_empty_message_is_at_most_twice_its_size() {
        let estimate = |name: &str| LAYOUTS.all[LAYOUTS.by_name[name]].empty_bytes;
        for (name, real) in [
            (SubmitTaskRequest::full_name(), size_of::<SubmitTaskRequest>()),
            (TaskFilter::full_name(), size_of::<TaskFilter>()),
            ("google.protobuf.Value".to_owned(), size_of::<Value>()),
        ] {
            let estimate = estimate(&name);
            assert!(real <= estimate && estimate <= 2 * real, "{name}: {estimate} for {real}");
        }
    }

    #[test]
    fn unchecked_messages_cannot_exceed_the_limit() {
        let requests: Vec<_> = LAYOUTS.by_name.iter().filter(|(name, _)| name.ends_with("Request")).collect();
        assert!(requests.len() > 10);
        let mut reached: Vec<usize> = requests.into_iter().map(|(_, index)| *index).collect();
        let mut seen = 0;
        while seen < reached.len() {
            for field in &LAYOUTS.all[reached[seen]].fields {
                let FieldLayout::Message { layout, repeated } = *field else { continue };
                let empty_bytes = LAYOUTS.all[layout].empty_bytes;
                let most = UNCHECKED_BYTES_MAX / 2 * empty_bytes;
                assert!(!repeated || most <= MEMORY_BYTES_MAX, "{empty_bytes} bytes each");
                if !reached.contains(&layout) {
                    reached.push(layout);
                }
            }
            seen += 1;
        }
    }

    #[test]
    fn malformed_messages_are_rejected() {
        let name = SubmitTaskRequest::full_name();
        // A group, an endless varint, a length beyond the end, an unknown wire type, truncated numbers.
        for bytes in [&[0x0b][..], &[0xff; 11], &[0x0a, 0x05, 0x00], &[0x0f, 0x00], &[0x09, 0x00], &[0x0d]] {
            assert_eq!(check(&name, bytes), Err(LimitError::Malformed), "{bytes:?}");
        }
        let mut deep = Vec::new();
        for _ in 0..DEPTH_MAX {
            deep = field(6, &field(1, &deep));
        }
        assert_eq!(check("google.protobuf.Value", &deep), Err(LimitError::Malformed));
        // Unknown fields are skipped, as in the decoder.
        assert!(check(&name, &[0xfa, 0x7f, 0x01, 0x00, 0xf8, 0x7f, 0x01]).is_ok());
    }
}
