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
    // Short parts are joined first, because each update costs as much as many bytes.
    let (mut joined, mut length) = ([0; 256], 0);
    for part in parts {
        if part.len() > joined.len() - length {
            hasher.update(&joined[..length]);
            length = 0;
        }
        if part.len() > joined.len() {
            hasher.update(part);
        } else {
            joined[length..][..part.len()].copy_from_slice(part);
            length += part.len();
        }
    }
    hasher.update(&joined[..length]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_does_not_depend_on_how_the_bytes_are_divided() {
        let bytes: Vec<u8> = (0..1_500_u32).map(|n| (n * 7 % 251) as u8).collect();
        let whole = crc32fast::hash(&bytes);
        for lengths in [[1, 255, 1], [256, 1, 300], [255, 2, 0], [257, 256, 512], [1_000, 200, 300]] {
            let (mut parts, mut rest) = (Vec::new(), &bytes[..]);
            for length in lengths {
                let (part, after) = rest.split_at(length);
                parts.push(part);
                rest = after;
            }
            parts.push(rest);
            assert_eq!(checksum(&parts), whole, "{lengths:?}");
        }
    }
}
