//! The codec of the API: protobuf with a limit on the memory that a decoded message takes.

use std::marker::PhantomData;

use bytes::Buf;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use super::memory_limit::{self, LimitError, MEMORY_BYTES_MAX, UNCHECKED_BYTES_MAX};

/// Encodes `T` and decodes `U`.
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

pub struct BoundedDecoder<D>(D);

impl<D> Decoder for BoundedDecoder<D>
where
    D: Decoder<Item: Name, Error = Status>,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        // The buffer holds the whole message in one contiguous chunk.
        if source.remaining() > UNCHECKED_BYTES_MAX {
            memory_limit::check(&D::Item::full_name(), source.chunk()).map_err(status)?;
        }
        self.0.decode(source)
    }
}

fn status(error: LimitError) -> Status {
    match error {
        LimitError::TooLarge => Status::resource_exhausted(format!(
            "message takes more than {} MiB of memory when decoded; send fewer items at once",
            MEMORY_BYTES_MAX >> 20
        )),
        // The same code and beginning as the error of the decoder, which would fail as well.
        LimitError::Malformed => {
            Status::internal("failed to decode Protobuf message: it does not follow the wire format")
        }
    }
}
