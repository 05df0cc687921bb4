//! Verifies the structure of a database file: that each page belongs to one table, index or the list of free pages, and
//! that the tables are defined as they were created.

use std::path::Path;

use rusqlite::{Connection, ffi};

use super::connection::Schema;
use super::error::sqlite_error;
use crate::store::error::StoreError;

/// SQLite reports an error of a read in this form, among the pages that are corrupt.
const ERROR_CODE: &str = "error code=";

/// Reads every page of the file, but compares no index with its table.
///
/// # Errors
/// [`StoreError::Malformed`].
pub fn verify_structure(connection: &Connection, path: &Path, schema: &Schema) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found != "ok" {
        let code = found.split_once(ERROR_CODE).and_then(|(_, code)| code.trim().parse().ok());
        return Err(match code {
            Some(code) => failed(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
            None => StoreError::malformed(path, found),
        });
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let created = || {
        let expected = Connection::open_in_memory()?;
        for sql in schema.migrations.iter().take(usize::try_from(version).unwrap_or_default()) {
            expected.execute_batch(sql)?;
        }
        definitions(&expected)
    };
    if definitions(connection).map_err(failed)? != created().map_err(failed)? {
        return Err(StoreError::malformed(path, "the definitions of its tables differ from what was written"));
    }
    Ok(())
}

/// All definitions except those of the table `pools` of the journal, which is dropped once its rows are events.
fn definitions(connection: &Connection) -> rusqlite::Result<Vec<[Option<String>; 4]>> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE tbl_name <> 'pools' ORDER BY type, name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
    rows.collect()
}
