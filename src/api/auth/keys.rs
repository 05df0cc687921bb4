//! API keys: the file that knows them by their hashes.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use tokio_util::sync::CancellationToken;

use crate::model::api_key::{self, KeyHash};
use crate::model::key_file::{KeyEntry, KeyFile, KeyFileError};

use super::authenticator::AuthError;
use super::identity::{Identity, Unauthenticated};
use super::quota_tracker::UsageRegistry;

/// The keys of a file, as it was last read.
pub struct Keys {
    path: PathBuf,
    known: ArcSwap<HashMap<Box<str>, Key>>,
}

#[derive(Clone)]
struct Key {
    entry: KeyEntry,
    hash: KeyHash,
    identity: Arc<Identity>,
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// [`AuthError`] when it cannot be read or used.
    pub fn open(path: PathBuf, usages: &UsageRegistry) -> Result<Self, AuthError> {
        let keys = Self { path, known: ArcSwap::default() };
        keys.reload(usages)?;
        Ok(keys)
    }

    /// The file.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Reads the file again. What is no longer in it, or says something else, is over at once.
    ///
    /// # Errors
    /// [`AuthError`]; then the keys stay as they were.
    pub fn reload(&self, usages: &UsageRegistry) -> Result<(), AuthError> {
        let text = std::fs::read_to_string(&self.path)
            .map_err(|source| AuthError::Unreadable { path: self.path.clone(), source })?;
        let broken = |error: KeyFileError| AuthError::Broken { path: self.path.clone(), why: error.to_string() };
        let file = KeyFile::parse(&text).map_err(broken)?;
        let before = self.known.load();
        let mut known = HashMap::with_capacity(file.keys.len());
        for entry in file.keys {
            let same = before.get(entry.id.as_str()).filter(|key| key.entry == entry);
            let key = match same {
                Some(key) => key.clone(),
                None => key(entry, usages).map_err(broken)?,
            };
            known.insert(key.entry.id.as_str().into(), key);
        }
        let known = Arc::new(known);
        self.known.store(known.clone());
        for (id, key) in before.iter() {
            if known.get(id).is_none_or(|now| !Arc::ptr_eq(&now.identity, &key.identity)) {
                key.identity.revoked.cancel();
            }
        }
        Ok(())
    }

    /// Whose key that is.
    ///
    /// # Errors
    /// [`Unauthenticated`] when it is nobody's.
    pub fn identify(&self, text: &str) -> Result<Arc<Identity>, Unauthenticated> {
        let id = api_key::id_of(text).ok_or(Unauthenticated::Invalid)?;
        let known = self.known.load();
        let key = known.get(id).ok_or(Unauthenticated::Invalid)?;
        // In constant time; the id only finds the entry, and is no secret.
        if key.hash == KeyHash::of(text) { Ok(key.identity.clone()) } else { Err(Unauthenticated::Invalid) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.known.load().len()
    }
}

fn key(entry: KeyEntry, usages: &UsageRegistry) -> Result<Key, KeyFileError> {
    let usage = usages.limited(&format!("key:{}", entry.name), &entry.limits);
    let identity = Identity::new(vec![entry.grant()?], entry.expiry()?, CancellationToken::new(), usage);
    Ok(Key { hash: entry.hash()?, entry, identity: Arc::new(identity) })
}

#[cfg(test)]
mod tests {
    use super::super::quota::LimitOptions;
    use super::*;
    use crate::model::api_key::GeneratedKey;
    use crate::model::{Role, Timestamp};

    #[test]
    fn keys_come_change_and_go_with_the_file_and_a_broken_file_changes_nothing() {
        let (usages, _settled) = UsageRegistry::new(LimitOptions::default());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let (one, two) = (GeneratedKey::random().unwrap(), GeneratedKey::random().unwrap());
        let entry = |key: &GeneratedKey, name: &str, role: &str| {
            KeyEntry::new(key, name, (role, vec!["*".to_owned()]), Timestamp::ZERO, None)
        };
        let write = |keys: Vec<KeyEntry>| std::fs::write(&path, KeyFile { keys }.to_toml()).unwrap();
        assert!(matches!(Keys::open(path.clone(), &usages), Err(AuthError::Unreadable { .. })));

        write(vec![entry(&one, "one", "viewer"), entry(&two, "two", "viewer")]);
        let keys = Keys::open(path.clone(), &usages).unwrap();
        let (first, second) = (keys.identify(&one.text).unwrap(), keys.identify(&two.text).unwrap());
        assert_eq!(&*first.name, "key:one");
        let forged = format!("{}{}", &one.text[..one.text.len() - 64], &two.text[two.text.len() - 64..]);
        assert_eq!(keys.identify(&forged).err(), Some(Unauthenticated::Invalid));

        write(vec![entry(&one, "one", "viewer"), entry(&two, "two", "operator")]);
        keys.reload(&usages).unwrap();
        assert!(!first.revoked.is_cancelled() && second.revoked.is_cancelled());
        let changed = keys.identify(&two.text).unwrap();
        assert!(changed.holds(Role::Operator));
        assert!(Arc::ptr_eq(&changed.usage, &second.usage), "limits are of the name, not of the token");

        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(keys.reload(&usages), Err(AuthError::Broken { .. })));
        assert!(keys.identify(&one.text).is_ok());

        write(Vec::new());
        keys.reload(&usages).unwrap();
        assert!(first.revoked.is_cancelled());
        assert_eq!((keys.identify(&one.text).err(), keys.count()), (Some(Unauthenticated::Invalid), 0));
    }
}
