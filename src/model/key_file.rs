//! The key file: one entry for each API key, with the hash of the key instead of the key.

use std::collections::HashSet;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::access::Grant;
use super::api_key::{GeneratedKey, KeyHash};
use super::clock::Timestamp;
use super::id::check_name;
use super::role_names::RoleNames;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Oldest first.
    #[serde(default, rename = "token")]
    pub keys: Vec<KeyEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// ID part of the key.
    pub id: String,
    /// Name of the key's owner; `key:NAME` in tasks, receipts and the audit log. 1 to 64 of `[A-Za-z0-9._:-]`.
    pub name: String,
    /// SHA-256 of the key, 64 hexadecimal digits.
    pub sha256: String,
    /// Written as one text, or as a list of several.
    pub role: RoleNames,
    /// Namespaces in which each role applies; `*` is all of them.
    pub namespaces: Vec<String>,
    /// Handlers that a worker may offer; if empty all. Only for the role worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; absent if the key does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Limits of this key that replace the general ones.
    #[serde(default, skip_serializing_if = "KeyLimits::is_empty")]
    pub limits: KeyLimits,
}

/// A valid entry, and what its texts mean.
#[derive(Debug)]
pub struct ParsedKey {
    pub entry: KeyEntry,
    pub hash: KeyHash,
    pub grant: Grant,
    pub expires_at: Option<Timestamp>,
}

/// Limits of one key. Each replaces the limit of the same name in `[auth.limits]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Average number of tasks submitted per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_rate: Option<NonZeroU32>,
    /// Tasks submitted at once. If the key has its own rate, the default is ten seconds' worth of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_burst: Option<NonZeroU32>,
    /// Unfinished tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_tasks: Option<NonZeroU32>,
    /// Bytes of the payloads of unfinished tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_payload_bytes: Option<NonZeroU64>,
    /// Open watches, waits and streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_streams: Option<NonZeroU32>,
}

impl KeyLimits {
    /// These limits, replaced by those that `other` sets.
    #[must_use]
    pub fn overridden_by(&self, other: &Self) -> Self {
        Self {
            submit_rate: other.submit_rate.or(self.submit_rate),
            submit_burst: other.submit_burst.or(self.submit_burst),
            live_tasks: other.live_tasks.or(self.live_tasks),
            live_payload_bytes: other.live_payload_bytes.or(self.live_payload_bytes),
            open_streams: other.open_streams.or(self.open_streams),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for KeyLimits {
    type Err = String;

    /// Parses one limit, such as `submit_rate=50`.
    fn from_str(text: &str) -> Result<Self, String> {
        let limits: Self = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if limits.is_empty() { Err("sets no limit; write NAME=NUMBER".to_owned()) } else { Ok(limits) }
    }
}

impl fmt::Display for KeyLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = toml::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&text.trim_end().replace(" = ", "=").replace('\n', ","))
    }
}

/// Why a key file is invalid. The message contains no text of the file that could be a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyFileError(String);

impl KeyEntry {
    /// An entry without limits and handlers. `grant` is roles and their namespaces. Times after the year 9999 become its end.
    pub fn new(
        key: &GeneratedKey,
        name: &str,
        grant: (RoleNames, Vec<String>),
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Self {
        let rfc3339 = |at: Timestamp| {
            let at = at.min(Timestamp::LAST_SHOWN);
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(at.as_micros())).to_string()
        };
        Self {
            id: key.id.clone(),
            name: name.to_owned(),
            sha256: KeyHash::of(&key.text).to_string(),
            role: grant.0,
            namespaces: grant.1,
            handlers: Vec::new(),
            created_at: rfc3339(now),
            expires_at: expires_at.map(rfc3339),
            limits: KeyLimits::default(),
        }
    }

    /// # Errors
    /// Names the invalid field.
    fn parsed(self) -> Result<ParsedKey, KeyFileError> {
        check_name(&self.name).map_err(|error| KeyFileError(format!("token name {:?} {error}", self.name)))?;
        let (hash, grant, expires_at) = (self.hash()?, self.grant()?, self.expiry()?);
        Ok(ParsedKey { entry: self, hash, grant, expires_at })
    }

    /// When the key expires; `None` if it does not.
    pub fn expiry(&self) -> Result<Option<Timestamp>, KeyFileError> {
        let invalid = |text: &String| {
            KeyFileError(format!("token {:?}: expires_at = {text:?} is not an RFC 3339 time", self.name))
        };
        let parse = |text: &String| {
            let at = humantime::parse_rfc3339_weak(text).map_err(|_| invalid(text))?;
            let since_epoch = at.duration_since(UNIX_EPOCH).map_err(|_| invalid(text))?;
            Ok(Timestamp::ZERO.after(since_epoch))
        };
        self.expires_at.as_ref().map(parse).transpose()
    }

    fn grant(&self) -> Result<Grant, KeyFileError> {
        Grant::parse(&self.role, &self.namespaces)
            .and_then(|grant| grant.for_handlers(&self.handlers))
            .map_err(|error| KeyFileError(format!("token {:?}: {error}", self.name)))
    }

    fn hash(&self) -> Result<KeyHash, KeyFileError> {
        let invalid = || KeyFileError(format!("token {:?}: sha256 is not 64 hexadecimal digits", self.name));
        KeyHash::parse(&self.sha256).ok_or_else(invalid)
    }
}

impl KeyFile {
    /// Parses and validates the text of a file, to change it.
    ///
    /// # Errors
    /// As [`KeyFile::parse_keys`].
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        Ok(Self { keys: Self::parse_keys(text)?.into_iter().map(|key| key.entry).collect() })
    }

    /// Parses the text of a file. One invalid entry makes the whole file invalid.
    ///
    /// # Errors
    /// Names the invalid entry.
    pub fn parse_keys(text: &str) -> Result<Vec<ParsedKey>, KeyFileError> {
        // The parser's own message would quote the line, which could contain a secret.
        let file: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            KeyFileError(format!("line {line}: {}", error.message()))
        })?;
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for entry in &file.keys {
            if !ids.insert(&entry.id) || !names.insert(&entry.name) {
                return Err(KeyFileError(format!("token {:?} appears twice", entry.name)));
            }
        }
        file.keys.into_iter().map(KeyEntry::parsed).collect()
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string_pretty(self).expect("every field is text or a number");
        format!("# Hashes of the API keys of a Lineshaft server: `lineshaft token create|list|revoke`.\n\n{body}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Role;
    use super::super::api_key::id_of;
    use super::super::id::HandlerName;
    use super::*;

    fn sample() -> (GeneratedKey, KeyFile) {
        let key = GeneratedKey::random().unwrap();
        let grant = ("submitter".into(), vec!["team-a".to_owned()]);
        let entry = KeyEntry::new(&key, "ci", grant, Timestamp(1_000_000), Some(Timestamp(61_000_000)));
        (key, KeyFile { keys: vec![entry] })
    }

    #[test]
    fn a_written_file_is_read_back_and_does_not_contain_the_key() {
        let (key, file) = sample();
        let text = file.to_toml();
        let read = KeyFile::parse(&text).unwrap();
        assert_eq!(read, file);
        let entry = &read.keys[0];
        assert_eq!(id_of(&key.text), Some(entry.id.as_str()));
        assert_eq!(entry.hash().unwrap(), KeyHash::of(&key.text));
        assert!(!text.contains(key.text.rsplit('_').next().unwrap()));
        assert_eq!(entry.expiry().unwrap(), Some(Timestamp(61_000_000)));
    }

    #[test]
    fn a_key_can_have_its_own_limits() {
        let (_, mut file) = sample();
        assert!(!file.to_toml().contains("limits"));
        file.keys[0].limits = "live_tasks=5".parse().unwrap();
        file.keys[0].limits.submit_rate = NonZeroU32::new(50);
        assert_eq!(KeyFile::parse(&file.to_toml()).unwrap(), file);
        assert_eq!(file.keys[0].limits.to_string(), "submit_rate=50,live_tasks=5");
    }

    #[test]
    fn a_key_of_a_worker_can_be_limited_to_handlers() {
        let (_, mut file) = sample();
        assert!(!file.to_toml().contains("handlers"));
        file.keys[0].handlers = vec!["resize".to_owned()];
        let error = KeyFile::parse(&file.to_toml()).unwrap_err().to_string();
        assert!(error.contains("only role worker"), "{error}");
        file.keys[0].role = "worker".into();
        let read = KeyFile::parse(&file.to_toml()).unwrap();
        assert_eq!(read, file);
        assert_eq!(read.keys[0].grant().unwrap().handlers, [HandlerName::parse("resize").unwrap()]);
    }

    #[test]
    fn a_key_can_have_several_roles() {
        let (_, mut file) = sample();
        assert!(file.to_toml().contains("role = \"submitter\""), "one role is a text");
        file.keys[0].role = RoleNames(vec!["worker".to_owned(), "submitter".to_owned()]);
        let read = KeyFile::parse(&file.to_toml()).unwrap();
        assert_eq!(read, file);
        assert!([Role::Worker, Role::Submitter].into_iter().all(|role| read.keys[0].grant().unwrap().includes(role)));
        file.keys[0].role.0.clear();
        assert!(KeyFile::parse(&file.to_toml()).unwrap_err().to_string().contains("no role"));
    }

    #[test]
    fn an_invalid_limit_is_refused() {
        for invalid in
            ["live_tasks=0", "live_tasks=-1", "live_tasks", "tasks=1", "live_tasks=many", "", "submit_rate=1e9"]
        {
            assert!(invalid.parse::<KeyLimits>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn one_invalid_entry_makes_the_file_invalid_and_the_error_does_not_quote_it() {
        let (_, file) = sample();
        let text = file.to_toml();
        let hash = &file.keys[0].sha256;
        for (invalid, expected) in [
            (text.replace("submitter", "root"), "role"),
            (text.replace("team-a", "team a"), "namespace"),
            (text.replace(hash, &hash[1..]), "sha256"),
            (text.replace("1970-01-01T00:01:01Z", "soon"), "expires_at"),
            (format!("{text}{}", text.split_once("\n\n").unwrap().1), "twice"),
            (text.replace("sha256 =", "secret ="), "line"),
            (text.replace("name = \"ci\"", "name = \"c i\""), "name"),
        ] {
            let error = KeyFile::parse(&invalid).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains(hash.as_str()), "{error}");
        }
    }
}
