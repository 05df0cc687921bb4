//! Resume tokens: where a watch continues. Opaque to clients, so that a later version can put more into them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip::SipHasher13;

use super::id::Revision;

/// Identity of a store: a random number that is chosen when the store is created, and kept for its whole life. Two
/// stores count their revisions independently, so a revision of one means nothing to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub u64);

impl StoreId {
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u64_pair().0)
    }
}

/// Format of the bytes in a token; the first byte of every token.
const VERSION: u8 = 2;
/// The version, the revision and the checksum.
const BYTES: usize = 1 + 8 + 4;

/// A watch with this token continues after `revision` of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeToken {
    pub store: StoreId,
    pub revision: Revision,
}

/// The text is not a token of this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a resume token of this server; pass the last token that this server returned, unchanged, or none")]
pub struct InvalidResumeToken;

impl ResumeToken {
    /// # Errors
    /// [`InvalidResumeToken`] if the text was altered, or is a token of another store.
    pub fn parse(text: &str, store: StoreId) -> Result<Self, InvalidResumeToken> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidResumeToken)?;
        let revision = bytes.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let token = Self { store, revision: Revision(revision.ok_or(InvalidResumeToken)?) };
        if bytes == token.bytes() { Ok(token) } else { Err(InvalidResumeToken) }
    }

    /// The text that clients receive: letters, digits, `-` and `_`.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes())
    }

    fn bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.revision.0.to_be_bytes());
        // The store is only in the checksum, so that a token of another store looks like an altered one. Every submission
        // makes a token: SipHash takes a fraction of the time that a CRC takes for a few bytes.
        let checksum = SipHasher13::new_with_keys(self.store.0, 0).hash(&bytes[..9]);
        bytes[9..].copy_from_slice(&checksum.to_be_bytes()[4..]);
        bytes
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId(7);

    fn token(revision: u64) -> String {
        ResumeToken { store: STORE, revision: Revision(revision) }.encode()
    }

    #[test]
    fn a_token_returns_its_revision_and_needs_no_escaping_in_a_url() {
        for revision in [0, 1, 255, 1 << 40, u64::MAX] {
            let text = token(revision);
            assert_eq!(ResumeToken::parse(&text, STORE).unwrap().revision, Revision(revision));
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
        }
    }

    #[test]
    fn a_token_of_another_store_is_rejected() {
        assert_eq!(ResumeToken::parse(&token(3), StoreId(8)), Err(InvalidResumeToken));
        assert_ne!(StoreId::random(), StoreId::random());
    }

    #[test]
    fn a_token_with_one_changed_missing_or_added_character_is_rejected() {
        let text = token(300);
        assert!(ResumeToken::parse(&format!("{text}A"), STORE).is_err());
        assert!(ResumeToken::parse(&format!("{text}="), STORE).is_err());
        assert!(ResumeToken::parse(&format!(" {text}"), STORE).is_err());
        for at in 0..text.len() {
            let (before, after) = (&text[..at], &text[at + 1..]);
            assert!(ResumeToken::parse(&format!("{before}{after}"), STORE).is_err(), "without character {at}");
            for other in ["A", "B", "9", "-", "_", "\u{e4}", "\0"] {
                let altered = format!("{before}{other}{after}");
                assert!(altered == text || ResumeToken::parse(&altered, STORE).is_err(), "{altered}");
            }
        }
    }

    #[test]
    fn texts_that_are_no_tokens_are_rejected() {
        for text in ["", "0", "17", "garbage", "AQ", &"A".repeat(18), &"A".repeat(10_000), "\u{1f600}"] {
            assert_eq!(ResumeToken::parse(text, STORE), Err(InvalidResumeToken), "{text}");
        }
    }
}
