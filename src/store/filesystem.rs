//! Creates, finds, locks and removes files and directories.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use crate::files::create_private_directory;

/// Symbolic links that are followed in a row.
const LINKS_MAX: usize = 40;

/// Creates a directory and its missing parents. Their names survive a power failure.
pub(super) fn create_directory(directory: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("create", directory, &error);
    let directory = std::path::absolute(directory).map_err(failed)?;
    let missing: Vec<&Path> = directory.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    create_private_directory(&directory).map_err(failed)?;
    missing.into_iter().rev().filter_map(Path::parent).try_for_each(sync_directory)
}

/// Makes durable which files a directory contains. A relative name has an empty parent, the current directory.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| StoreError::io("sync", directory, &error))
}

/// The file that a symbolic link leads to, which may not exist yet. SQLite keeps the log of a database file beside the
/// file, not beside the link.
pub(super) fn follow_links(path: PathBuf) -> PathBuf {
    let mut found = path;
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&found) else { break };
        found = found.parent().unwrap_or(Path::new("")).join(target);
    }
    found
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
