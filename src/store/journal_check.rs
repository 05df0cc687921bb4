//! Whether the journal's rows are what was written: checksums, and revisions without a hole.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row};

use super::StoreError;
use super::record::{checksum, commit_checksum};
use super::sqlite::fault;
use crate::model::Revision;

/// One row, its checksum verified.
pub(super) struct CommitRow<'a> {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) body: &'a [u8],
}

impl CommitRow<'_> {
    pub(super) fn corrupt(&self, path: &Path, detail: String) -> StoreError {
        corrupt(path, self.first, detail)
    }
}

fn corrupt(path: &Path, first: u64, detail: impl Into<String>) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), place: format!("commit {first}"), detail: detail.into() }
}

/// The error of a hole in the revisions.
pub(super) fn missing(path: &Path, revision: Revision) -> StoreError {
    corrupt(path, revision.0, "the commit of this revision is missing")
}

/// Reads the columns `first, count, checksum, body` and verifies them.
pub(super) fn row<'a>(row: &'a Row<'_>, path: &Path) -> Result<CommitRow<'a>, StoreError> {
    let fault = |error| fault("read", path, &error);
    let first = row.get::<_, i64>(0).map_err(fault)?.cast_unsigned();
    let broken = |_| corrupt(path, first, "a column has another type than was written");
    let count = row.get::<_, i64>(1).map_err(broken)?.cast_unsigned();
    let written: u32 = row.get(2).map_err(broken)?;
    let body = row.get_ref(3).map_err(fault)?.as_blob().map_err(|_| corrupt(path, first, "the body is no blob"))?;
    if commit_checksum(first, count, body) != written || count == 0 || first == 0 {
        return Err(corrupt(path, first, "the checksum does not fit"));
    }
    Ok(CommitRow { first, count, body })
}

/// Verifies every commit; answers where the journal begins (exclusively) and ends.
pub(super) fn verify(connection: &Connection, path: &Path) -> Result<(u64, u64), StoreError> {
    let fault = |error| fault("read", path, &error);
    let (trimmed, noted_end) = ends(connection, path)?;
    let mut statement =
        connection.prepare("SELECT first, count, checksum, body FROM commits ORDER BY first").map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    let mut end = trimmed;
    while let Some(found) = rows.next().map_err(fault)? {
        let commit = row(found, path)?;
        if commit.first != end + 1 {
            return Err(missing(path, Revision(end + 1)));
        }
        end += commit.count;
    }
    if end < noted_end {
        return Err(missing(path, Revision(end + 1)));
    }
    Ok((trimmed, end))
}

/// Where the journal begins (exclusively), and where it ended when that was last noted.
pub(super) fn ends(connection: &Connection, path: &Path) -> Result<(u64, u64), StoreError> {
    let damaged = || StoreError::Corrupt {
        path: path.to_owned(),
        place: "the row of table meta".to_owned(),
        detail: "it does not fit its checksum".to_owned(),
    };
    let numbers = connection
        .query_row("SELECT trimmed, end, checksum FROM meta WHERE id = 1", [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, u32>(2)?))
        })
        .optional()
        .map_err(|error| fault("read", path, &error))?;
    let (trimmed, end, written) = numbers.ok_or_else(damaged)?;
    let fresh = (trimmed, end, written) == (0, 0, 0);
    if !fresh && ends_checksum(trimmed, end) != written {
        return Err(damaged());
    }
    Ok((trimmed, end))
}

/// Checksum of the meta row.
pub(super) fn ends_checksum(trimmed: u64, end: u64) -> u32 {
    checksum(&[&trimmed.to_le_bytes(), &end.to_le_bytes()])
}
