//! Verifies large results and outputs. Apart from a start and a check, they are verified only when they are read.

use std::path::Path;

use rusqlite::{Connection, Row};

use super::index_check::ExpectedEntries;
use super::rows::{output, result};
use super::sum::Sum;
use crate::store::error::StoreError;
use crate::store::sqlite::sqlite_error;

/// The rows of a table of results whose checksums all match.
pub struct StoredResults(Sum);

impl StoredResults {
    /// Compares the rows with the tasks.
    pub fn verify(&self, expected: &ExpectedEntries, path: &Path) -> Result<(), StoreError> {
        if self.0 == expected.results() {
            return Ok(());
        }
        Err(StoreError::corrupt(path, "table results", "rows do not match the tasks"))
    }
}

/// Verifies every large result and output, and the index of the outputs.
pub fn verify_bodies(connection: &Connection, path: &Path) -> Result<StoredResults, StoreError> {
    let results = for_each_row(connection, path, "SELECT seq, crc, body FROM results", |seq, row| {
        let verified = result(seq, row, 1);
        verified.map_err(|corruption| StoreError::corrupt(path, format!("table results, row {seq}"), corruption))?;
        Ok(seq)
    })?;
    let rows = for_each_row(
        connection,
        path,
        "SELECT seq, attempt, rowid, crc, body FROM outputs NOT INDEXED",
        |seq, row| {
            let (attempt, rowid) = keys(row, path)?;
            let verified = output(seq, attempt, row, 3);
            verified
                .map_err(|corruption| StoreError::corrupt(path, format!("table outputs, row {seq}"), corruption))?;
            Ok(rowid ^ seq.rotate_left(21) ^ u64::from(attempt).rotate_left(42))
        },
    )?;
    let mut previous = None;
    let sql = "SELECT seq, attempt, rowid FROM outputs INDEXED BY sqlite_autoindex_outputs_1 ORDER BY seq, attempt";
    let index = for_each_row(connection, path, sql, |seq, row| {
        let (attempt, rowid) = keys(row, path)?;
        if previous.replace((seq, attempt)) >= Some((seq, attempt)) {
            return Err(StoreError::corrupt(path, "the index of outputs", "entries are out of order"));
        }
        Ok(rowid ^ seq.rotate_left(21) ^ u64::from(attempt).rotate_left(42))
    })?;
    if index != rows {
        return Err(StoreError::corrupt(path, "the index of outputs", "entries do not match the rows"));
    }
    Ok(StoredResults(results))
}

/// The sum of the keys that `key` returns for each row. The first column is `seq`.
fn for_each_row(
    connection: &Connection,
    path: &Path,
    sql: &str,
    mut key: impl FnMut(u64, &Row<'_>) -> Result<u64, StoreError>,
) -> Result<Sum, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut sum = Sum::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let seq = row.get::<_, i64>(0).map_err(failed)?.cast_unsigned();
        sum.add(key(seq, row)?, &[]);
    }
    Ok(sum)
}

/// The columns `attempt, rowid` of an output.
fn keys(row: &Row<'_>, path: &Path) -> Result<(u32, u64), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    Ok((row.get(1).map_err(failed)?, row.get::<_, i64>(2).map_err(failed)?.cast_unsigned()))
}
