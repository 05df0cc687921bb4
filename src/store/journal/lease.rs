//! The lease of the journal, in a table of its own: which opening of the journal owns it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::error::StoreError;
use crate::store::record::checksum;
use crate::store::sqlite::sqlite_error;

/// Takes the lease: raises the epoch, which is durable on return, and returns it.
pub(super) fn take(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    let epoch = load(connection, path)? + 1;
    let updated = connection.execute(
        "INSERT OR REPLACE INTO lease VALUES (1, ?1, ?2)",
        params![epoch.cast_signed(), checksum(&[&epoch.to_le_bytes()])],
    );
    updated.map_err(|error| sqlite_error("write to", path, &error))?;
    Ok(epoch)
}

/// The epoch of the last opening; 0 if there was none since the table was added.
pub fn load(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    let corrupt = |detail: &str| StoreError::corrupt(path, "table lease", detail);
    let columns = connection
        .prepare_cached("SELECT epoch, checksum FROM lease WHERE id = 1")
        .and_then(|mut lease| lease.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))))
        .optional()
        .map_err(|error| sqlite_error("read", path, &error))?;
    let (epoch, written) = columns.ok_or_else(|| corrupt("its row is missing"))?;
    let epoch = epoch.cast_unsigned();
    let is_new = (epoch, written) == (0, 0);
    if is_new || written == i64::from(checksum(&[&epoch.to_le_bytes()])) {
        return Ok(epoch);
    }
    Err(corrupt("checksum mismatch"))
}
