//! API keys: their text, and the file that knows them by their hashes only.
//!
//! A key is `lineshaft_ID_SECRET`: the id (12 hexadecimal digits) finds its entry, the secret (64, 256
//! random bits) proves it. The file holds the SHA-256 of the whole text. A fast hash is enough: nobody
//! guesses 256 bits, and a slow one would be a means to keep the server busy.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::access::Grant;
use super::clock::Timestamp;
use super::id::check_name;

/// What every key begins with, so that scanners find leaked ones.
pub const PREFIX: &str = "lineshaft_";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// The SHA-256 of a key. Compared in constant time; shows nothing of the key.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key's whole text.
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

    /// The bytes, as a key for tables of what was verified.
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

/// A new key: its id, and its text, which is shown once and never again.
pub struct NewKey {
    /// Finds its entry.
    pub id: String,
    /// The whole key.
    pub text: String,
}

impl NewKey {
    /// Makes a key from the system's randomness.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn random() -> Result<Self, RandomnessError> {
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| RandomnessError)?;
        let (id, secret) = bytes.split_at(ID_BYTES);
        let id = hex(id);
        Ok(Self { text: format!("{PREFIX}{id}_{}", hex(secret)), id })
    }
}

/// The system has no randomness to give.
#[derive(Debug, thiserror::Error)]
#[error("the system has no randomness to give")]
pub struct RandomnessError;

/// The id in a key's text; `None` when it is no key.
pub fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
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

/// The file of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Its keys, the oldest first.
    #[serde(default, rename = "token")]
    pub keys: Vec<KeyEntry>,
}

/// One key as the file holds it: everything but the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Finds the entry; the first part of the key.
    pub id: String,
    /// Whose it is; `key:NAME` in tasks, receipts and the audit log. 1 to 64 of `[A-Za-z0-9._:-]`.
    pub name: String,
    /// SHA-256 of the key, 64 hexadecimal digits.
    pub sha256: String,
    /// What it may do.
    pub role: String,
    /// Where; `*` is everywhere.
    pub namespaces: Vec<String>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it ends, RFC 3339; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Its bounds, where they are not those of everybody.
    #[serde(default, skip_serializing_if = "KeyLimits::is_empty")]
    pub limits: KeyLimits,
}

/// Bounds of one key, each in the place of the one in `[auth.limits]`; all 1 at least.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Tasks a second that it may submit, averaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_rate: Option<NonZeroU32>,
    /// Tasks at once; of a key with a rate of its own ten seconds' worth when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_burst: Option<NonZeroU32>,
    /// Tasks that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_tasks: Option<NonZeroU32>,
    /// Bytes of their payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_payload_bytes: Option<NonZeroU64>,
    /// Watches, waits and streams that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_streams: Option<NonZeroU32>,
}

impl KeyLimits {
    /// These, and in their place those that `more` has.
    #[must_use]
    pub fn with(&self, more: &Self) -> Self {
        Self {
            submit_rate: more.submit_rate.or(self.submit_rate),
            submit_burst: more.submit_burst.or(self.submit_burst),
            live_tasks: more.live_tasks.or(self.live_tasks),
            live_payload_bytes: more.live_payload_bytes.or(self.live_payload_bytes),
            open_streams: more.open_streams.or(self.open_streams),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for KeyLimits {
    type Err = String;

    /// Parses one of them: `submit_rate=50`.
    fn from_str(text: &str) -> Result<Self, String> {
        let one: Self = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if one.is_empty() { Err("there is no limit in it".to_owned()) } else { Ok(one) }
    }
}

impl fmt::Display for KeyLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = toml::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&text.trim_end().replace(" = ", "=").replace('\n', ","))
    }
}

/// What is wrong with a file of keys; never shows its text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyFileError(String);

impl KeyEntry {
    /// When it ends.
    ///
    /// # Errors
    /// When the text is no time.
    pub fn ends(&self) -> Result<Option<Timestamp>, KeyFileError> {
        let wrong = |text: &String| KeyFileError(format!("token {:?}: expires_at = {text:?} is no time", self.name));
        let parse = |text: &String| {
            let at = humantime::parse_rfc3339_weak(text).map_err(|_| wrong(text))?;
            let span = at.duration_since(UNIX_EPOCH).map_err(|_| wrong(text))?;
            Ok(Timestamp::ZERO.after(span))
        };
        self.expires_at.as_ref().map(parse).transpose()
    }

    /// What it may do, and where.
    ///
    /// # Errors
    /// Says which name is wrong.
    pub fn grant(&self) -> Result<Grant, KeyFileError> {
        Grant::parse(&self.role, &self.namespaces)
            .map_err(|error| KeyFileError(format!("token {:?}: {error}", self.name)))
    }

    /// The hash of its key.
    ///
    /// # Errors
    /// When the text is no hash.
    pub fn hash(&self) -> Result<KeyHash, KeyFileError> {
        let text = || KeyFileError(format!("token {:?}: sha256 is not 64 hexadecimal digits", self.name));
        KeyHash::parse(&self.sha256).ok_or_else(text)
    }
}

impl KeyFile {
    /// Parses and checks the text of a file.
    ///
    /// # Errors
    /// Names the entry that is wrong; a broken file is refused as a whole.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        // The parser's own text would show the line, and with it what may be meant to be secret.
        let file: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            KeyFileError(format!("line {line}: {}", error.message()))
        })?;
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for entry in &file.keys {
            check_name(&entry.name).map_err(|error| KeyFileError(format!("token name {:?} {error}", entry.name)))?;
            entry.hash()?;
            entry.grant()?;
            entry.ends()?;
            if !ids.insert(&entry.id) || !names.insert(&entry.name) {
                return Err(KeyFileError(format!("token {:?} is there twice", entry.name)));
            }
        }
        Ok(file)
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let body = toml::to_string_pretty(self).expect("entries are plain texts");
        format!("# API keys of a Lineshaft server, by their hashes: `lineshaft token create|list|revoke`.\n\n{body}")
    }
}

/// An entry for a new key.
pub fn entry(key: &NewKey, name: &str, grant: (&str, Vec<String>), now: Timestamp, life: Option<Duration>) -> KeyEntry {
    let time = |at: Timestamp| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(at.as_micros())).to_string()
    };
    KeyEntry {
        id: key.id.clone(),
        name: name.to_owned(),
        sha256: KeyHash::of(&key.text).to_string(),
        role: grant.0.to_owned(),
        namespaces: grant.1,
        created_at: time(now),
        expires_at: life.map(|life| time(now.after(life))),
        limits: KeyLimits::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (NewKey, KeyFile) {
        let key = NewKey::random().unwrap();
        let grant = ("submitter", vec!["team-a".to_owned()]);
        let made = entry(&key, "ci", grant, Timestamp(1_000_000), Some(Duration::from_secs(60)));
        (key, KeyFile { keys: vec![made] })
    }

    #[test]
    fn a_key_is_found_by_its_id_and_proved_by_its_hash_and_the_file_does_not_know_it() {
        let (key, file) = sample();
        let text = file.text();
        let read = KeyFile::parse(&text).unwrap();
        assert_eq!(read, file);
        let entry = &read.keys[0];
        assert_eq!(id_of(&key.text), Some(entry.id.as_str()));
        assert_eq!(entry.hash().unwrap(), KeyHash::of(&key.text));
        assert_ne!(entry.hash().unwrap(), KeyHash::of(&format!("{}0", key.text)));
        let secret = key.text.rsplit('_').next().unwrap();
        assert!(!text.contains(secret) && secret.len() == 64);
        assert_eq!(entry.ends().unwrap(), Some(Timestamp(61_000_000)));
        assert_ne!(NewKey::random().unwrap().text, key.text);
    }

    #[test]
    fn a_key_may_have_bounds_of_its_own() {
        let (_, mut file) = sample();
        assert!(!file.text().contains("limits"));
        file.keys[0].limits = "live_tasks=5".parse().unwrap();
        file.keys[0].limits.submit_rate = NonZeroU32::new(50);
        assert_eq!(KeyFile::parse(&file.text()).unwrap(), file);
        assert_eq!(file.keys[0].limits.to_string(), "submit_rate=50,live_tasks=5");
        for wrong in
            ["live_tasks=0", "live_tasks=-1", "live_tasks", "tasks=1", "live_tasks=many", "", "submit_rate=1e9"]
        {
            assert!(wrong.parse::<KeyLimits>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_key_has_no_id() {
        let (key, _) = sample();
        let shorter = &key.text[..key.text.len() - 1];
        for text in ["", "lineshaft_", "lineshaft_x_y", shorter, "Bearer x", &key.text.to_uppercase()] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_broken_file_is_refused_as_a_whole_without_showing_it() {
        let (_, file) = sample();
        let text = file.text();
        let hash = &file.keys[0].sha256;
        for (broken, told) in [
            (text.replace("submitter", "root"), "role"),
            (text.replace("team-a", "team a"), "namespace"),
            (text.replace(hash, &hash[1..]), "sha256"),
            (text.replace("1970-01-01T00:01:01Z", "soon"), "expires_at"),
            (format!("{text}{}", text.split_once("\n\n").unwrap().1), "twice"),
            (text.replace("sha256 =", "secret ="), "line"),
            (text.replace("name = \"ci\"", "name = \"c i\""), "name"),
        ] {
            let error = KeyFile::parse(&broken).unwrap_err().to_string();
            assert!(error.contains(told), "{told}: {error}");
            assert!(!error.contains(hash.as_str()), "{error}");
        }
    }
}
