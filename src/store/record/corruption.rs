//! Detects bytes that are not what was written.

/// Why bytes cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Corruption(String);

impl Corruption {
    pub fn new(detail: impl Into<String>) -> Self {
        Self(detail.into())
    }
}

impl From<prost::DecodeError> for Corruption {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// CRC-32 over the concatenated parts.
pub fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}
