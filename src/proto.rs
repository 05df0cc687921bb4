//! The generated contract, and the codec that reads it. Its text and comments are in `proto/lineshaft/v1`.

pub mod bounded_codec;

/// `package lineshaft.v1`.
#[expect(
    unused_qualifications,
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("lineshaft.v1");
}

/// KEDA's protocol for external scalers; its text and comments are in `proto/externalscaler`.
#[expect(
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in the .proto file"
)]
pub mod externalscaler {
    tonic::include_proto!("externalscaler");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the contract and its imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
