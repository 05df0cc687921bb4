//! Writes the journal's rows, reads them, and verifies them: their checksums, and that no revision is missing.

use std::fmt::Display;
use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::schema::Bounds;
use crate::model::{Event, Revision};
use crate::store::error::StoreError;
use crate::store::journal_sizes::JournalSizes;
use crate::store::record::{commit_checksum, decode_commit, encode_commit};
use crate::store::sqlite::sqlite_error;
use crate::store::traits::Commit;

/// Maximum bytes of the commits of one read, unless the first alone is larger.
const READ_BYTES_MAX: usize = 2 << 20;

/// A row whose checksum matches.
struct CommitRow<'a> {
    first: u64,
    count: u64,
    body: &'a [u8],
}

fn corrupt_commit(path: &Path, first: u64, detail: impl Display) -> StoreError {
    StoreError::corrupt(path, format!("commit {first}"), detail)
}

fn missing_commit(path: &Path, first: u64) -> StoreError {
    corrupt_commit(path, first, "the commit is missing")
}

/// Writes a commit and returns the size of its body. `body` is memory for it.
pub(super) fn insert(connection: &Connection, commit: &Commit, body: &mut Vec<u8>) -> rusqlite::Result<usize> {
    let (first, count) = (commit.first().0, commit.events.len() as u64);
    body.clear();
    body.reserve_exact(commit.bytes);
    encode_commit(&commit.events, body);
    let checksum = commit_checksum(first, count, body);
    let mut statement = connection.prepare_cached("INSERT INTO commits VALUES (?1, ?2, ?3, ?4)")?;
    statement.execute(params![first.cast_signed(), count.cast_signed(), checksum, &**body])?;
    Ok(body.len())
}

/// Reads and verifies the columns `first, count, checksum, body`.
fn commit_row<'a>(row: &'a Row<'_>, path: &Path) -> Result<CommitRow<'a>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let first = row.get::<_, i64>(0).map_err(failed)?.cast_unsigned();
    let wrong_type = |_| corrupt_commit(path, first, "a column has an unexpected type");
    let count = row.get::<_, i64>(1).map_err(wrong_type)?.cast_unsigned();
    let written: u32 = row.get(2).map_err(wrong_type)?;
    let body = row.get_ref(3).map_err(failed)?.as_blob();
    let body = body.map_err(|_| corrupt_commit(path, first, "a column has an unexpected type"))?;
    if commit_checksum(first, count, body) != written || count == 0 || first == 0 {
        return Err(corrupt_commit(path, first, "checksum mismatch"));
    }
    Ok(CommitRow { first, count, body })
}

/// Verifies every commit and returns which revisions there are, and the sizes of their commits. `reached` is called with the last
/// revision of each.
pub fn verify(
    connection: &Connection,
    path: &Path,
    mut reached: impl FnMut(u64),
) -> Result<(Bounds, JournalSizes), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let recorded = Bounds::load(connection, path)?;
    let mut statement =
        connection.prepare("SELECT first, count, checksum, body FROM commits ORDER BY first").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut end = recorded.trimmed;
    let mut sizes = JournalSizes::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let commit = commit_row(row, path)?;
        if commit.first != end + 1 {
            return Err(missing_commit(path, end + 1));
        }
        end += commit.count;
        sizes.add(Revision(end), commit.body.len() as u64);
        reached(end);
    }
    if end < recorded.end {
        return Err(missing_commit(path, end + 1));
    }
    Ok((Bounds { end, ..recorded }, sizes))
}

/// Whole commits after `after`, about `limit` events. There must be later events.
pub(super) fn read(
    connection: &Connection,
    path: &Path,
    after: Revision,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = "SELECT first, count, checksum, body FROM commits
        WHERE first >= (SELECT max(first) FROM commits WHERE first <= ?1) ORDER BY first";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([after.0.wrapping_add(1).cast_signed()]).map_err(failed)?;
    let mut events = Vec::new();
    let (mut next, mut bytes) = (None, 0);
    while events.len() < limit.max(1)
        && let Some(row) = rows.next().map_err(failed)?
    {
        let commit = commit_row(row, path)?;
        bytes += commit.body.len();
        if bytes > READ_BYTES_MAX && !events.is_empty() {
            break;
        }
        if let Some(next) = next.filter(|next| *next != commit.first) {
            return Err(missing_commit(path, next));
        }
        next = Some(commit.first + commit.count);
        events.extend(decode(&commit, path)?.into_iter().filter(|event| event.revision() > after));
    }
    match events.first() {
        Some(first) if first.revision() == after.next() => Ok(events),
        _ => Err(missing_commit(path, after.next().0)),
    }
}

fn decode(commit: &CommitRow<'_>, path: &Path) -> Result<Vec<Event>, StoreError> {
    let decoded = decode_commit(Revision(commit.first), commit.body);
    let decoded = decoded.map_err(|corruption| corrupt_commit(path, commit.first, corruption))?;
    if decoded.len() as u64 != commit.count {
        let detail = format!("{} events instead of {}", decoded.len(), commit.count);
        return Err(corrupt_commit(path, commit.first, detail));
    }
    Ok(decoded)
}

/// The events of handlers after `after`.
pub fn handler_events(connection: &Connection, path: &Path, after: Revision) -> Result<Vec<Event>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = "SELECT first, count, checksum, body FROM commits WHERE first + count > ?1 ORDER BY first";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([after.next().0.cast_signed()]).map_err(failed)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let is_wanted = |event: &Event| matches!(event, Event::Handler(_)) && event.revision() > after;
        events.extend(decode(&commit_row(row, path)?, path)?.into_iter().filter(is_wanted));
    }
    Ok(events)
}
