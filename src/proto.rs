//! The generated code of the API, its descriptors, the codec that decodes requests, and the JSON form of messages. The
//! API is documented in `proto/lineshaft/v1`.

pub(crate) mod bounded_codec;
mod descriptors;
mod excerpt;
pub(crate) mod json;
mod memory_limit;

pub use descriptors::DESCRIPTORS;

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

/// KEDA's protocol for external scalers, documented in `proto/externalscaler`.
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
