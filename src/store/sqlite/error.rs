//! Maps SQLite errors to store errors.

use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::store::error::StoreError;

pub fn sqlite_error(action: &'static str, path: &Path, error: &rusqlite::Error) -> StoreError {
    let io = |remedy: &str| {
        let detail = format!("{error}; {remedy}");
        StoreError::Io { action, path: path.to_owned(), detail }
    };
    if error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC) {
        return StoreError::SyncFailed { path: path.to_owned(), detail: error.to_string() };
    }
    match error.sqlite_error_code() {
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
