//! API keys: their text form and their hash.
//!
//! A key is `lineshaft_ID_SECRET`. The ID (12 hexadecimal digits) finds the entry in the key file; the secret
//! (64 hexadecimal digits, 256 random bits) authenticates it. Only the SHA-256 of the whole text is stored. A
//! fast hash is sufficient because 256 random bits cannot be guessed, and a slow hash would let clients
//! overload the server.

use std::fmt::{self, Write};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

/// Prefix of every key, so that secret scanners find leaked ones.
pub const KEY_PREFIX: &str = "lineshaft_";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// SHA-256 of a key. Compared in constant time; `Debug` prints no part of it.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes the whole text of a key.
    pub fn of(text: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// A new key. Its text is shown once and stored nowhere.
pub struct GeneratedKey {
    /// The ID part of `text`.
    pub id: String,
    /// The whole key.
    pub text: String,
}

impl GeneratedKey {
    /// Generates a key from the random source of the operating system.
    ///
    /// # Errors
    /// [`RandomSourceError`].
    pub fn random() -> Result<Self, RandomSourceError> {
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| RandomSourceError)?;
        let (id, secret) = bytes.split_at(ID_BYTES);
        let id = hex(id);
        Ok(Self { text: format!("{KEY_PREFIX}{id}_{}", hex(secret)), id })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("failed to read random bytes from the operating system")]
pub struct RandomSourceError;

/// The ID in the text of a key; `None` if the text is not a key.
pub fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(KEY_PREFIX)?.split_once('_')?;
    let hexadecimal = |part: &str, bytes| part.len() == 2 * bytes && part.bytes().all(|b| b.is_ascii_hexdigit());
    (hexadecimal(id, ID_BYTES) && hexadecimal(secret, SECRET_BYTES)).then_some(id)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_contains_its_id_and_a_256_bit_secret() {
        let key = GeneratedKey::random().unwrap();
        assert_eq!(id_of(&key.text), Some(key.id.as_str()));
        assert_eq!(key.text.rsplit('_').next().unwrap().len(), 64);
        assert_ne!(GeneratedKey::random().unwrap().text, key.text);
    }

    #[test]
    fn only_the_exact_text_of_a_key_has_its_hash() {
        let key = GeneratedKey::random().unwrap();
        let hash = KeyHash::parse(&KeyHash::of(&key.text).to_string()).unwrap();
        assert_eq!(hash, KeyHash::of(&key.text));
        assert_ne!(hash, KeyHash::of(&format!("{}0", key.text)));
    }

    #[test]
    fn a_text_that_is_not_a_key_has_no_id() {
        let key = GeneratedKey::random().unwrap();
        let shorter = &key.text[..key.text.len() - 1];
        for text in ["", "lineshaft_", "lineshaft_x_y", shorter, "Bearer x", &key.text.to_uppercase()] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }
}
