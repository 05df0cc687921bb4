//! Maps SQLite errors to store errors.

use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::store::error::StoreError;

/// Bytes that SQLite adds to a file at a time, at most.
const SPACE_MIN: u64 = 64 << 10;

pub fn sqlite_error(action: &'static str, path: &Path, error: &rusqlite::Error) -> StoreError {
    let io = |remedy: &str| {
        let detail = format!("{error}; {remedy}");
        StoreError::Io { action, path: path.to_owned(), detail }
    };
    if error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC) {
        return StoreError::SyncFailed { path: path.to_owned(), detail: error.to_string() };
    }
    match error.sqlite_error_code() {
        // SQLite reports a lack of space for its shared memory as an I/O error.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if lacks_space(path) => {
            StoreError::Full { path: path.to_owned() }
        }
        Some(ErrorCode::DiskFull) => StoreError::Full { path: path.to_owned() },
        Some(ErrorCode::NotADatabase) => StoreError::Incompatible {
            path: path.to_owned(),
            detail: "it is not a data file, or its header is corrupt; move it away or restore it from a backup"
                .to_owned(),
        },
        Some(ErrorCode::DatabaseCorrupt) => StoreError::malformed(path, error),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            io("the server needs write access to the file and its directory")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            io("another program has locked it; only the server may write to it")
        }
        Some(_) => io("check the disk and the system log"),
        // Without an SQLite code: a column has an unexpected type.
        None => StoreError::corrupt(path, "a row", error),
    }
}

/// Whether the file system of a file has no space for what SQLite adds at a time.
fn lacks_space(path: &Path) -> bool {
    let directory = path.parent().unwrap_or(path);
    rustix::fs::statvfs(directory).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) < SPACE_MIN)
}
