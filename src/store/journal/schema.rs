//! The tables of `journal.db`, and the bounds of the journal in its meta table.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::error::StoreError;
use crate::store::record::checksum;
use crate::store::sqlite::{Schema, sqlite_error};

pub const SCHEMA: Schema = Schema {
    application_id: 0x4c53_4a31,
    migrations: &[
        "CREATE TABLE commits(
            first INTEGER PRIMARY KEY,
            count INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            body BLOB NOT NULL
        );
        CREATE TABLE meta(
            id INTEGER PRIMARY KEY,
            trimmed INTEGER NOT NULL,
            end INTEGER NOT NULL,
            checksum INTEGER NOT NULL
        );
        INSERT INTO meta VALUES (1, 0, 0, 0);",
        "CREATE TABLE pools(
            name TEXT PRIMARY KEY,
            configured_size INTEGER NOT NULL,
            configured_queue_limit INTEGER NOT NULL,
            configured_paused INTEGER NOT NULL,
            size INTEGER NOT NULL,
            queue_limit INTEGER NOT NULL,
            paused INTEGER NOT NULL,
            checksum INTEGER NOT NULL
        );",
        "CREATE TABLE identity(id INTEGER PRIMARY KEY, store INTEGER NOT NULL, checksum INTEGER NOT NULL);",
        "CREATE TABLE lease(id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, checksum INTEGER NOT NULL);
        INSERT INTO lease VALUES (1, 0, 0);
        -- Commits contain events of pools; `pool_table` converts the rows of the table and drops it.",
    ],
    // What it keeps is bounded, and it is written on the way of every call.
    shrinks: false,
    conversions: &[],
};

/// Which revisions the journal contains. Recorded at each trim and at an orderly shutdown, so the journal may continue
/// after `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Revisions up to here are deleted.
    pub trimmed: u64,
    pub end: u64,
}

impl Bounds {
    pub fn load(connection: &Connection, path: &Path) -> Result<Self, StoreError> {
        let corrupt = || StoreError::corrupt(path, "table meta", "checksum mismatch");
        let columns = connection
            .query_row("SELECT trimmed, end, checksum FROM meta WHERE id = 1", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, u32>(2)?))
            })
            .optional()
            .map_err(|error| sqlite_error("read", path, &error))?;
        let (trimmed, end, written) = columns.ok_or_else(corrupt)?;
        let bounds = Self { trimmed: trimmed.cast_unsigned(), end: end.cast_unsigned() };
        let is_new = (trimmed, end, written) == (0, 0, 0);
        if is_new || bounds.checksum() == written { Ok(bounds) } else { Err(corrupt()) }
    }

    pub(super) fn store(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES (1, ?1, ?2, ?3)")?;
        statement.execute(params![self.trimmed.cast_signed(), self.end.cast_signed(), self.checksum()]).map(|_| ())
    }

    fn checksum(self) -> u32 {
        checksum(&[&self.trimmed.to_le_bytes(), &self.end.to_le_bytes()])
    }
}
