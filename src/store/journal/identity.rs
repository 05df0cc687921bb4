//! The identity of the store, in a table of its own.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::StoreId;
use crate::store::error::StoreError;
use crate::store::record::checksum;
use crate::store::sqlite::sqlite_error;

/// Reads the identity; a store that has none yet gets a random one, which is durable on return.
pub(super) fn load_or_create(connection: &Connection, path: &Path) -> Result<StoreId, StoreError> {
    if let Some(id) = load(connection, path)? {
        return Ok(id);
    }
    let id = StoreId::random();
    let inserted = connection.execute(
        "INSERT INTO identity VALUES (1, ?1, ?2)",
        params![id.0.cast_signed(), checksum(&[&id.0.to_le_bytes()])],
    );
    inserted.map_err(|error| sqlite_error("write to", path, &error))?;
    Ok(id)
}

/// Returns `None` if no server has opened the store since the table was added.
pub fn load(connection: &Connection, path: &Path) -> Result<Option<StoreId>, StoreError> {
    let columns = connection
        .query_row("SELECT store, checksum FROM identity WHERE id = 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()
        .map_err(|error| sqlite_error("read", path, &error))?;
    let Some((store, written)) = columns else { return Ok(None) };
    let id = StoreId(store.cast_unsigned());
    if written != i64::from(checksum(&[&id.0.to_le_bytes()])) {
        return Err(StoreError::corrupt(path, "table identity", "checksum mismatch"));
    }
    Ok(Some(id))
}
