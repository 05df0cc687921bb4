//! Creates, finds, locks and removes files and directories.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use crate::files::{self, create_private_directory};

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

/// The database file that a path leads to, which may not exist yet. SQLite keeps the log of a database file beside the
/// file, not beside the link.
///
/// # Errors
/// [`StoreError::Io`] for a symbolic link that another user has made, unless that is root, and for a file with several names,
/// because programs that open it by different names use different logs.
pub(super) fn database_file(path: PathBuf) -> Result<PathBuf, StoreError> {
    let mut found = path;
    for _ in 0..LINKS_MAX {
        let Ok(file) = std::fs::symlink_metadata(&found) else { break };
        let owner = file.uid();
        let is_trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
        let detail = match file.is_symlink() {
            true if is_trusted => {
                let target = std::fs::read_link(&found).map_err(|error| StoreError::io("open", &found, &error))?;
                found = found.parent().unwrap_or(Path::new("")).join(target);
                continue;
            }
            true => format!("it is a symbolic link of another user ({owner}); remove it"),
            false if file.is_file() && file.nlink() > 1 => {
                format!("it has {} names (hard links), must have one; remove the others, or copy it", file.nlink())
            }
            false => break,
        };
        return Err(StoreError::Io { action: "open", path: found, detail });
    }
    Ok(found)
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
    files::remove_if_present(path).map_err(|error| StoreError::io("remove", path, &error))
}

/// Locks the file; `None` when another process holds the lock. Closing the file releases it.
pub(super) fn try_lock(file: File, path: &Path) -> Result<Option<File>, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path, &error)),
    }
}
