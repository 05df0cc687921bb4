//! Helpers for the tests of several files.

use std::sync::Arc;

use tempfile::TempDir;

use crate::model::api_key::GeneratedKey;
use crate::model::key_file::{KeyEntry, KeyFile};
use crate::model::{SystemClock, TaskId, TaskOptions, TaskSpec, Timestamp};

use super::authenticate::AccessControl;
use super::authenticator::{AuthOptions, Authenticator};

pub fn spec(id: &str, by: &str, payload: usize) -> TaskSpec {
    TaskSpec {
        id: TaskId::parse(id).unwrap(),
        options: Arc::new(TaskOptions { submitted_by: by.into(), ..TaskOptions::sample() }),
        payload: vec![0; payload].into(),
        extras: None,
    }
}

/// Access control with one viewer, and the viewer's key.
pub fn access() -> (AccessControl, String, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.toml");
    let key = GeneratedKey::random().unwrap();
    let entry = KeyEntry::new(&key, "me", ("viewer".into(), vec!["*".to_owned()]), Timestamp::ZERO, None);
    std::fs::write(&path, KeyFile { keys: vec![entry] }.to_toml()).unwrap();
    let options = AuthOptions { tokens_file: Some(path), ..AuthOptions::default() };
    let (authenticator, _files) = Authenticator::open(options, Arc::new(SystemClock)).unwrap();
    (AccessControl::new(Some(authenticator)), key.text, directory)
}
