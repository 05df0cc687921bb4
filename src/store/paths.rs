//! The files of a store directory.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::StoreError;

pub(super) const JOURNAL: &str = "journal.db";
pub(super) const PROJECTION: &str = "projection.db";
/// Locked by the server that uses the directory.
pub(super) const LOCK: &str = "lock";

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The write-ahead log of a database file.
pub(super) fn wal_path(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

/// The watermark of a database file.
pub(super) fn watermark_path(database: &Path) -> PathBuf {
    database.with_extension("mark")
}

/// # Errors
/// [`StoreError::Io`] with `remedy` when the file does not exist.
pub(super) fn require_file(path: &Path, remedy: &str) -> Result<(), StoreError> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Io { action: "find", path: path.to_owned(), detail: remedy.to_owned() })
        }
        Err(error) => Err(StoreError::io("open", path, &error)),
    }
}

pub(super) fn remove_if_present(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Locks the file; `None` when another process holds the lock. Closing the file releases it.
pub(super) fn try_lock(file: File, path: &Path) -> Result<Option<File>, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path, &error)),
    }
}
