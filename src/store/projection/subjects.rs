//! The table of subjects: one row with the last event of each pool and handler.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::error::StoreError;
use crate::store::record::{Subjects, checksum};
use crate::store::sqlite::sqlite_error;

pub fn load_subjects(connection: &Connection, path: &Path) -> Result<Subjects, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let corrupt = |detail: String| StoreError::corrupt(path, "table subjects", detail);
    let row = connection
        .query_row("SELECT crc, body FROM subjects WHERE id = 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()
        .map_err(failed)?;
    let (crc, body) = row.ok_or_else(|| corrupt("its row is missing".to_owned()))?;
    if crc != i64::from(checksum(&[&body])) {
        return Err(corrupt("checksum mismatch".to_owned()));
    }
    Subjects::decode(&body).map_err(|corruption| corrupt(corruption.to_string()))
}

pub(super) fn store_subjects(connection: &Connection, subjects: &Subjects) -> rusqlite::Result<()> {
    let body = subjects.encode();
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO subjects VALUES (1, ?1, ?2)")?;
    statement.execute(params![checksum(&[&body]), body]).map(|_| ())
}
