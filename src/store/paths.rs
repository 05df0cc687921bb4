//! The names of the files of a store directory.

use std::path::{Path, PathBuf};

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

/// The index of the log, which all processes that have the file open share.
pub(super) fn shm_path(database: &Path) -> PathBuf {
    with_suffix(database, "-shm")
}

/// The watermark of a database file.
pub(super) fn watermark_path(database: &Path) -> PathBuf {
    database.with_extension("mark")
}
