//! API keys. The key file contains their hashes.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use tokio_util::sync::CancellationToken;

use crate::model::api_key::{self, KeyHash};
use crate::model::key_file::{KeyEntry, KeyFile, KeyFileError, ParsedKey};

use super::error::AuthError;
use super::identity::Identity;
use super::quota_tracker::UsageRegistry;
use super::refusal::Unauthenticated;

const UNKNOWN: Unauthenticated =
    Unauthenticated::Invalid("no API key has this id; it was revoked, or is of another server");
const WRONG_SECRET: Unauthenticated = Unauthenticated::Invalid("an API key has this id, but another secret");

/// The keys of a file as it was last read, by key id.
pub struct Keys {
    path: PathBuf,
    by_id: ArcSwap<HashMap<Box<str>, Key>>,
}

#[derive(Clone)]
struct Key {
    entry: KeyEntry,
    hash: KeyHash,
    identity: Arc<Identity>,
}

impl Key {
    fn new(ParsedKey { entry, hash, grant, expires_at }: ParsedKey, usages: &UsageRegistry) -> Self {
        let usage = usages.limited(&format!("key:{}", entry.name), &entry.limits);
        let identity = Identity::new(vec![grant], expires_at, CancellationToken::new(), usage);
        Self { hash, entry, identity: Arc::new(identity) }
    }
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn open(path: PathBuf, usages: &UsageRegistry) -> Result<Self, AuthError> {
        let keys = Self { path, by_id: ArcSwap::default() };
        keys.reload(usages)?;
        Ok(keys)
    }

    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Reads the file again. Keys that were removed or changed are revoked at once.
    ///
    /// # Errors
    /// [`AuthError`]; the keys stay as they were.
    pub fn reload(&self, usages: &UsageRegistry) -> Result<(), AuthError> {
        let text = std::fs::read_to_string(&self.path).map_err(|source| AuthError::Unreadable {
            setting: "auth.tokens_file",
            path: self.path.clone(),
            source,
        })?;
        let invalid = |error: KeyFileError| AuthError::Invalid { path: self.path.clone(), why: error.to_string() };
        let parsed = KeyFile::parse_keys(&text).map_err(invalid)?;
        let old = self.by_id.load();
        let mut new = HashMap::with_capacity(parsed.len());
        for parsed in parsed {
            let unchanged = old.get(parsed.entry.id.as_str()).filter(|key| key.entry == parsed.entry);
            let key = unchanged.cloned().unwrap_or_else(|| Key::new(parsed, usages));
            new.insert(key.entry.id.as_str().into(), key);
        }
        let new = Arc::new(new);
        self.by_id.store(new.clone());
        for (id, key) in old.iter() {
            if new.get(id).is_none_or(|now| !Arc::ptr_eq(&now.identity, &key.identity)) {
                key.identity.revoked.cancel();
            }
        }
        Ok(())
    }

    /// Identifies the holder of a key.
    ///
    /// # Errors
    /// [`Unauthenticated`] if the file does not contain the key.
    pub fn identify(&self, text: &str) -> Result<Arc<Identity>, Unauthenticated> {
        let id = api_key::id_of(text).ok_or(Unauthenticated::Invalid("malformed API key"))?;
        let keys = self.by_id.load();
        let key = keys.get(id).ok_or(UNKNOWN)?;
        // The hashes are compared in constant time. The id only finds the entry and is not secret.
        if key.hash == KeyHash::of(text) { Ok(key.identity.clone()) } else { Err(WRONG_SECRET) }
    }

    pub fn count(&self) -> usize {
        self.by_id.load().len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota::LimitOptions;
    use super::*;
    use crate::model::api_key::GeneratedKey;
    use crate::model::{Role, Timestamp};

    struct Fixture {
        usages: UsageRegistry,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let (usages, _committed) = UsageRegistry::new(LimitOptions::default());
            let directory = tempfile::tempdir().unwrap();
            Self { usages, path: directory.path().join("tokens.toml"), _directory: directory }
        }

        fn write(&self, entries: &[(&GeneratedKey, &str, &str)]) {
            let entry = |(key, name, role): &(&GeneratedKey, &str, &str)| {
                KeyEntry::new(key, name, ((*role).into(), vec!["*".to_owned()]), Timestamp::ZERO, None)
            };
            std::fs::write(&self.path, KeyFile { keys: entries.iter().map(entry).collect() }.to_toml()).unwrap();
        }

        fn open(&self) -> Keys {
            Keys::open(self.path.clone(), &self.usages).unwrap()
        }
    }

    fn key() -> GeneratedKey {
        GeneratedKey::random().unwrap()
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let fixture = Fixture::new();
        assert!(matches!(Keys::open(fixture.path.clone(), &fixture.usages), Err(AuthError::Unreadable { .. })));
    }

    #[test]
    fn a_key_identifies_its_holder_and_a_forged_one_does_not() {
        let (fixture, one, two) = (Fixture::new(), key(), key());
        fixture.write(&[(&one, "one", "viewer")]);
        let keys = fixture.open();
        assert_eq!(&*keys.identify(&one.text).unwrap().name, "key:one");
        let forged = format!("{}{}", &one.text[..one.text.len() - 64], &two.text[two.text.len() - 64..]);
        assert_eq!(keys.identify(&forged).err(), Some(WRONG_SECRET));
    }

    #[test]
    fn a_reload_revokes_changed_and_removed_keys_only() {
        let (fixture, one, two) = (Fixture::new(), key(), key());
        fixture.write(&[(&one, "one", "viewer"), (&two, "two", "viewer")]);
        let keys = fixture.open();
        let (first, second) = (keys.identify(&one.text).unwrap(), keys.identify(&two.text).unwrap());

        fixture.write(&[(&one, "one", "viewer"), (&two, "two", "operator")]);
        keys.reload(&fixture.usages).unwrap();
        assert!(!first.revoked.is_cancelled() && second.revoked.is_cancelled());
        let changed = keys.identify(&two.text).unwrap();
        assert!(changed.has_role(Role::Operator));
        assert!(Arc::ptr_eq(&changed.usage, &second.usage), "a quota belongs to the name, not to the key");

        fixture.write(&[]);
        keys.reload(&fixture.usages).unwrap();
        assert!(first.revoked.is_cancelled());
        assert_eq!((keys.identify(&one.text).err(), keys.count()), (Some(UNKNOWN), 0));
    }

    #[test]
    fn an_invalid_file_leaves_the_keys_as_they_were() {
        let (fixture, one) = (Fixture::new(), key());
        fixture.write(&[(&one, "one", "viewer")]);
        let keys = fixture.open();
        std::fs::write(&fixture.path, "nonsense").unwrap();
        assert!(matches!(keys.reload(&fixture.usages), Err(AuthError::Invalid { .. })));
        assert!(keys.identify(&one.text).is_ok());
    }
}
