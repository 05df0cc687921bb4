//! The descriptors of the API.

/// The encoded `google.protobuf.FileDescriptorSet` of the API and its imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
