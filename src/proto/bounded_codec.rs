//! The codec of the contract: protobuf, bounded by the memory that a message takes once it is read.
//!
//! Two bytes on the wire can be a whole empty message, and that takes hundreds in memory. So the parts of a
//! large message are weighed before any of them is made; what would take too much is refused unread.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::LazyLock;

use bytes::Buf;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

/// Bytes of memory that the parts of one message may take, beside the bytes of its texts.
pub const PARTS_BYTES_MAX: usize = 64 << 20;
/// Messages up to this size are not weighed: whatever their parts are, they do not take more.
const LIGHT_BYTES: usize = 128 << 10;
/// Messages within each other; the decoder allows no more.
const DEPTH_MAX: usize = 100;
/// An empty text or list in memory.
const TEXT_BYTES: usize = 24;
/// Field numbers of the contract are below.
const NUMBER_MAX: u32 = 256;

/// Writes `T` and reads `U`.
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = BoundedDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::default()))
    }
}

/// Weighs a message before it reads it.
pub struct BoundedDecoder<D>(D);

impl<D> Decoder for BoundedDecoder<D>
where
    D: Decoder<Item: Name, Error = Status>,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        // The buffer holds the whole message in one piece.
        if source.remaining() > LIGHT_BYTES {
            weigh(&D::Item::full_name(), source.chunk())?;
        }
        self.0.decode(source)
    }
}

fn weigh(name: &str, bytes: &[u8]) -> Result<(), Status> {
    let Some(shape) = SHAPES.names.get(name) else { return Ok(()) };
    let mut scale = Scale { left: PARTS_BYTES_MAX };
    scale.put(*shape, bytes, 0).map_err(|refused| match refused {
        Refused::TooHeavy => Status::resource_exhausted(format!(
            "the parts of the message take more than {} MiB when they are read: send fewer at once",
            PARTS_BYTES_MAX >> 20
        )),
        // In the words of the decoder, which would have found it as well.
        Refused::Broken => Status::internal("failed to decode Protobuf message: it does not follow the wire format"),
    })
}

/// What messages look like in memory, by their places in `all`.
struct Shapes {
    names: HashMap<String, usize>,
    all: Vec<Shape>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::new);

#[derive(Default)]
struct Shape {
    /// Bytes of one, empty.
    weight: usize,
    /// By their numbers; unknown ones are skipped by the decoder and weigh nothing.
    fields: Vec<Field>,
}

#[derive(Clone, Copy, Default)]
enum Field {
    /// Has its place in the message, or is unknown.
    #[default]
    Fixed,
    /// A list of numbers.
    Numbers,
    /// A list of texts.
    Texts,
    /// Another message.
    Part { shape: usize, repeated: bool },
}

impl Shapes {
    fn new() -> Self {
        // The binary carries what it was built with: it can be read, as the tests of the edge show.
        let pool = DescriptorPool::decode(super::DESCRIPTORS).unwrap_or_default();
        let names: HashMap<_, _> =
            pool.all_messages().enumerate().map(|(place, message)| (message.full_name().to_owned(), place)).collect();
        let shape = |message: MessageDescriptor| {
            let weight = weight(&message, 0) * if message.is_map_entry() { 2 } else { 1 };
            let mut fields = Vec::new();
            for field in message.fields().filter(|field| field.number() < NUMBER_MAX) {
                let number = field.number() as usize;
                fields.resize(fields.len().max(number + 1), Field::Fixed);
                let repeated = field.cardinality() == prost_reflect::Cardinality::Repeated;
                fields[number] = match field.kind() {
                    Kind::Message(part) => Field::Part { shape: names[part.full_name()], repeated },
                    Kind::String | Kind::Bytes if repeated => Field::Texts,
                    _ if repeated => Field::Numbers,
                    _ => Field::Fixed,
                };
            }
            Shape { weight, fields }
        };
        let all = pool.all_messages().map(shape).collect();
        Self { names, all }
    }
}

/// About as many bytes as one has in memory, empty.
fn weight(message: &MessageDescriptor, depth: usize) -> usize {
    let alone = message.fields().filter(|field| field.containing_oneof().is_none());
    let chosen =
        message.oneofs().map(|choice| 8 + choice.fields().map(|field| place(&field, depth)).max().unwrap_or(0));
    8 + alone.map(|field| place(&field, depth)).sum::<usize>() + chosen.sum::<usize>()
}

fn place(field: &FieldDescriptor, depth: usize) -> usize {
    match field.kind() {
        _ if field.is_list() || field.is_map() => TEXT_BYTES,
        Kind::String | Kind::Bytes => TEXT_BYTES + 8,
        // What holds its own kind holds it at a distance.
        Kind::Message(part) if depth < 4 => 8 + weight(&part, depth + 1),
        _ => 8,
    }
}

enum Refused {
    TooHeavy,
    Broken,
}

/// What may still be put on.
struct Scale {
    left: usize,
}

impl Scale {
    fn take(&mut self, bytes: usize) -> Result<(), Refused> {
        self.left = self.left.checked_sub(bytes).ok_or(Refused::TooHeavy)?;
        Ok(())
    }

    fn put(&mut self, shape: usize, mut bytes: &[u8], depth: usize) -> Result<(), Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::Broken);
        }
        let shape = &SHAPES.all[shape];
        while !bytes.is_empty() {
            let tag = number(&mut bytes)?;
            let field = usize::try_from(tag >> 3).ok().and_then(|number| shape.fields.get(number).copied());
            match (tag & 7, field.unwrap_or_default()) {
                (2, field) => {
                    let length = usize::try_from(number(&mut bytes)?).map_err(|_| Refused::Broken)?;
                    let (content, rest) = bytes.split_at_checked(length).ok_or(Refused::Broken)?;
                    bytes = rest;
                    self.put_one(field, content, depth)?;
                }
                (0, field) => {
                    number(&mut bytes)?;
                    self.take(if matches!(field, Field::Numbers) { 8 } else { 0 })?;
                }
                (1, _) => bytes = bytes.get(8..).ok_or(Refused::Broken)?,
                (5, _) => bytes = bytes.get(4..).ok_or(Refused::Broken)?,
                // Groups, which the contract does not have.
                _ => return Err(Refused::Broken),
            }
        }
        Ok(())
    }

    fn put_one(&mut self, field: Field, content: &[u8], depth: usize) -> Result<(), Refused> {
        match field {
            Field::Fixed => Ok(()),
            Field::Numbers => self.take(content.len().saturating_mul(8)),
            Field::Texts => self.take(TEXT_BYTES),
            Field::Part { shape, repeated } => {
                self.take(if repeated { SHAPES.all[shape].weight } else { 0 })?;
                self.put(shape, content, depth + 1)
            }
        }
    }
}

/// The next number, of 1 to 10 bytes.
fn number(bytes: &mut &[u8]) -> Result<u64, Refused> {
    // Most are small.
    if let Some((first, rest)) = bytes.split_first().filter(|(first, _)| **first < 0x80) {
        *bytes = rest;
        return Ok((*first).into());
    }
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            *bytes = &bytes[place + 1..];
            return Ok(value);
        }
    }
    Err(Refused::Broken)
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind as ValueKind;
    use prost_types::{ListValue, Value};

    use super::*;
    use crate::proto::v1::{BatchSubmitTasksRequest, Payload, SubmitTaskRequest, TaskFilter, payload};

    fn weighed<M: Message + Name>(message: &M) -> Result<(), tonic::Code> {
        weigh(&M::full_name(), &message.encode_to_vec()).map_err(|status| status.code())
    }

    fn with_json(kind: ValueKind) -> SubmitTaskRequest {
        let payload = Payload { kind: Some(payload::Kind::Json(Value { kind: Some(kind) })), ..Payload::default() };
        SubmitTaskRequest { handler: "compute".to_owned(), payload: Some(payload), ..SubmitTaskRequest::default() }
    }

    fn list(kind: Option<ValueKind>, count: usize) -> ValueKind {
        ValueKind::ListValue(ListValue { values: vec![Value { kind }; count] })
    }

    #[test]
    fn what_people_send_is_light_enough() {
        let mut task = with_json(list(Some(ValueKind::NumberValue(1.5)), 100));
        task.labels = (0..16).map(|n| (format!("label-{n}"), "x".repeat(60))).collect();
        task.args = vec!["an argument".to_owned(); 64];
        let batch = BatchSubmitTasksRequest { tasks: vec![task; 5_000], batch_id: "b".to_owned() };
        assert_eq!(weighed(&batch), Ok(()), "{} bytes", batch.encoded_len());
        // As many numbers as a payload of the largest size can have.
        assert_eq!(weighed(&with_json(list(Some(ValueKind::NumberValue(1.0)), 524_288))), Ok(()));
        let bytes = Payload { kind: Some(payload::Kind::Data(vec![7; 16 << 20].into())), ..Payload::default() };
        assert_eq!(weighed(&SubmitTaskRequest { payload: Some(bytes), ..SubmitTaskRequest::default() }), Ok(()));
    }

    /// The bytes of a field, again and again.
    fn many(number: u32, content: &[u8], count: usize) -> Vec<u8> {
        field(number, content).repeat(count)
    }

    fn field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::bytes::encode(number, &content.to_vec(), &mut bytes);
        bytes
    }

    #[test]
    fn what_grows_a_lot_when_it_is_read_is_refused() {
        let json = |value: &[u8]| field(2, &field(2, value));
        let entries: Vec<u8> =
            (0..600_000_u32).flat_map(|key| field(1, &field(1, format!("{key:x}").as_bytes()))).collect();
        for (what, name, bytes) in [
            ("tasks", BatchSubmitTasksRequest::full_name(), many(1, &[], 300_000)),
            ("values", SubmitTaskRequest::full_name(), json(&field(6, &many(1, &[], 2_000_000)))),
            ("lists", SubmitTaskRequest::full_name(), json(&field(6, &many(1, &field(6, &[]), 2_000_000)))),
            ("objects", SubmitTaskRequest::full_name(), json(&field(5, &entries))),
            ("arguments", SubmitTaskRequest::full_name(), many(11, &[], 3_000_000)),
            ("ids", TaskFilter::full_name(), many(1, &[], 3_000_000)),
            ("states", TaskFilter::full_name(), field(4, &vec![1; 9_000_000])),
        ] {
            let refused = weigh(&name, &bytes).map_err(|status| status.code());
            assert_eq!(refused, Err(tonic::Code::ResourceExhausted), "{what}: {} bytes", bytes.len());
        }
    }

    #[test]
    fn the_weight_of_a_message_is_about_what_it_takes() {
        let weight = |name: &str| SHAPES.all[SHAPES.names[name]].weight;
        for (name, real) in [
            (SubmitTaskRequest::full_name(), size_of::<SubmitTaskRequest>()),
            (TaskFilter::full_name(), size_of::<TaskFilter>()),
            ("google.protobuf.Value".to_owned(), size_of::<Value>()),
        ] {
            let told = weight(&name);
            assert!(real <= told && told <= 2 * real, "{name}: {told} for {real}");
        }
    }

    #[test]
    fn what_is_not_weighed_cannot_be_too_heavy() {
        let asked: Vec<_> = SHAPES.names.iter().filter(|(name, _)| name.ends_with("Request")).collect();
        assert!(asked.len() > 10);
        let mut reached: Vec<usize> = asked.into_iter().map(|(_, place)| *place).collect();
        let mut seen = 0;
        while seen < reached.len() {
            for field in &SHAPES.all[reached[seen]].fields {
                let Field::Part { shape, repeated } = *field else { continue };
                let most = LIGHT_BYTES / 2 * SHAPES.all[shape].weight;
                assert!(!repeated || most <= PARTS_BYTES_MAX, "{} bytes each", SHAPES.all[shape].weight);
                if !reached.contains(&shape) {
                    reached.push(shape);
                }
            }
            seen += 1;
        }
    }

    #[test]
    fn what_cannot_be_weighed_is_not_read() {
        let name = SubmitTaskRequest::full_name();
        // A group, a number without end, a length beyond the end, a kind that does not exist.
        for bytes in [&[0x0b][..], &[0xff; 11], &[0x0a, 0x05, 0x00], &[0x0f, 0x00], &[0x09, 0x00], &[0x0d]] {
            let refused = weigh(&name, bytes).map_err(|status| status.code());
            assert_eq!(refused, Err(tonic::Code::Internal), "{bytes:?}");
        }
        let mut deep = Vec::new();
        for _ in 0..DEPTH_MAX {
            deep = field(6, &field(1, &deep));
        }
        assert_eq!(weigh("google.protobuf.Value", &deep).map_err(|status| status.code()), Err(tonic::Code::Internal));
        // Unknown fields are skipped, as the decoder does.
        assert!(weigh(&name, &[0xfa, 0x7f, 0x01, 0x00, 0xf8, 0x7f, 0x01]).is_ok());
    }
}
