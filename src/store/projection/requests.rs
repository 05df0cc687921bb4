//! The table of request IDs. They are remembered longer than their tasks, for a time and up to a number that the operator
//! sets.
//!
//! Rows are numbered in the order of submission, so they are added at the end of the table and removed at its start. The
//! index has a hash instead of the text, which keeps it small.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{COLUMNS, RowReader, blob, number, text};
use super::sum::Sum;
use crate::model::{
    Namespace, RememberedRequest, RequestKey, RequestName, RequestRetention, Revision, SubmissionDigest, TaskEvent,
    TaskId, TaskSpec, Timestamp,
};
use crate::store::error::StoreError;
use crate::store::record::{Corruption, checksum};
use crate::store::sqlite::sqlite_error;

/// Rows that one transaction examines for removal, if it adds fewer.
const TRIM_MIN: i64 = if cfg!(test) { 4 } else { 1_024 };

/// Rows beyond which a start verifies only the structure of the table. Verifying a million takes about a second.
const VERIFIED_AT_START: i64 = if cfg!(test) { 1_000 } else { 1_000_000 };

/// A request ID that is not written yet.
pub(super) struct NewRequest {
    key: Arc<RequestKey>,
    digest: SubmissionDigest,
    namespace: Namespace,
    task: TaskId,
    submission: Revision,
    at: Timestamp,
}

impl NewRequest {
    pub(super) fn of(event: &TaskEvent, spec: &TaskSpec) -> Option<Self> {
        let (key, digest) = spec.request_with_digest()?;
        Some(Self {
            key: key.clone(),
            digest,
            namespace: spec.options.namespace.clone(),
            task: event.task.clone(),
            submission: event.revision,
            at: event.at,
        })
    }
}

/// The numbers of the rows, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTable {
    /// Number of the first row, if there is one.
    first: i64,
    /// Number of the row that is added next.
    next: i64,
    retention: RequestRetention,
}

impl RequestTable {
    pub(super) fn load(connection: &Connection, path: &Path, retention: RequestRetention) -> Result<Self, StoreError> {
        let (first, last) = bounds(connection).map_err(|error| sqlite_error("read", path, &error))?;
        Ok(Self { first, next: last + 1, retention })
    }

    /// Adds rows, and removes some of those that are kept no longer.
    pub(super) fn write(&mut self, connection: &Connection, added: &[NewRequest]) -> rusqlite::Result<()> {
        let Some(newest) = added.last() else { return Ok(()) };
        for request in added {
            insert(connection, self.next, request)?;
            self.next += 1;
        }
        self.trim(connection, newest.at, TRIM_MIN.max(2 * i64::try_from(added.len()).unwrap_or(i64::MAX / 2)))
    }

    /// Examines `steps` rows at most.
    fn trim(&mut self, connection: &Connection, now: Timestamp, steps: i64) -> rusqlite::Result<()> {
        let end = self.next.min(self.first + steps);
        let surplus = self.next.saturating_sub_unsigned(self.retention.count);
        let by_count = surplus.clamp(self.first, end);
        let oldest_kept = now.0.saturating_sub(u64::try_from(self.retention.age.as_micros()).unwrap_or(u64::MAX));
        let first_kept = connection
            .prepare_cached("SELECT number FROM requests WHERE number >= ?1 AND number < ?2 AND at > ?3 LIMIT 1")?
            .query_row(params![by_count, end, oldest_kept.cast_signed()], |row| row.get(0))
            .optional()?
            .unwrap_or(end);
        if first_kept > self.first {
            connection.prepare_cached("DELETE FROM requests WHERE number < ?1")?.execute([first_kept])?;
            self.first = first_kept;
        }
        Ok(())
    }
}

/// Numbers of the first and the last row; `(1, 0)` if there are none.
fn bounds(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let number = |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<i64>>(0));
    let first = number("SELECT min(number) FROM requests")?;
    let last = number("SELECT max(number) FROM requests")?;
    Ok(first.zip(last).unwrap_or((1, 0)))
}

fn insert(connection: &Connection, number: i64, request: &NewRequest) -> rusqlite::Result<()> {
    let NewRequest { key, digest, namespace, task, submission, at } = request;
    let task = task.to_string();
    let row = RequestRow {
        number,
        hash: hash(namespace.as_str(), &key.id),
        namespace: namespace.as_str(),
        id: &key.id,
        task: &task,
        submission: submission.0.cast_signed(),
        at: at.0.cast_signed(),
        digest: digest.as_bytes(),
    };
    connection
        .prepare_cached("INSERT INTO requests VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            row.number,
            row.hash,
            row.namespace,
            row.id,
            row.task,
            row.submission,
            row.at,
            row.digest,
            row.checksum()
        ])
        .map(|_| ())
}

/// The key of the index: the start of a SHA-256, so that no client can choose request IDs with equal keys.
fn hash(namespace: &str, id: &str) -> i64 {
    // Names contain no NUL byte, so it separates them.
    let text = format!("{namespace}\0{id}");
    let mut key = [0; 8];
    key.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..8]);
    i64::from_le_bytes(key)
}

struct RequestRow<'a> {
    number: i64,
    hash: i64,
    namespace: &'a str,
    id: &'a str,
    task: &'a str,
    submission: i64,
    at: i64,
    digest: &'a [u8],
}

/// The columns that [`RequestRow::read`] reads.
const REQUEST_COLUMNS: &str = "number, hash, namespace, request_id, task, submission, at, digest, crc";

impl<'a> RequestRow<'a> {
    /// Reads and verifies a row.
    fn read(row: &'a Row<'_>) -> Result<Self, Corruption> {
        let integer = |index| number(row, index).map(Option::unwrap_or_default);
        let found = Self {
            number: integer(0)?,
            hash: integer(1)?,
            namespace: text(row, 2)?,
            id: text(row, 3)?,
            task: text(row, 4)?,
            submission: integer(5)?,
            at: integer(6)?,
            digest: blob(row, 7)?,
        };
        if number(row, 8)? != Some(found.checksum().into()) || found.hash != hash(found.namespace, found.id) {
            return Err(Corruption::new("checksum mismatch"));
        }
        Ok(found)
    }

    fn checksum(&self) -> u32 {
        checksum(&[
            &self.number.to_le_bytes(),
            &self.hash.to_le_bytes(),
            &self.submission.to_le_bytes(),
            &self.at.to_le_bytes(),
            self.digest,
            self.namespace.as_bytes(),
            b"\0",
            self.id.as_bytes(),
            b"\0",
            self.task.as_bytes(),
        ])
    }

    /// `last`: number of the last row.
    fn remembered(&self, last: i64) -> Result<RememberedRequest, Corruption> {
        let digest = SubmissionDigest::from_bytes(self.digest);
        Ok(RememberedRequest {
            task: TaskId::parse(self.task).map_err(|error| Corruption::new(error.to_string()))?,
            submission: Revision(self.submission.cast_unsigned()),
            digest: digest.ok_or_else(|| Corruption::new("the digest has the wrong length"))?,
            at: Timestamp(self.at.cast_unsigned()),
            newer: last.abs_diff(self.number),
        })
    }
}

fn corrupt(path: &Path, what: impl std::fmt::Display, corruption: Corruption) -> StoreError {
    StoreError::corrupt(path, format!("table requests, {what}"), corruption)
}

/// The newest submission with each request ID.
pub(super) fn find(
    connection: &Connection,
    path: &Path,
    names: &[RequestName],
) -> Result<Vec<Option<RememberedRequest>>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let (_, last) = bounds(connection).map_err(failed)?;
    let sql = format!(
        "SELECT {REQUEST_COLUMNS} FROM requests
         WHERE hash = ?1 AND request_id = ?2 AND namespace = ?3 ORDER BY number DESC LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut requests = Vec::with_capacity(names.len());
    for (namespace, key) in names {
        let values = params![hash(namespace.as_str(), &key.id), &key.id, namespace.as_str()];
        let mut rows = statement.query(values).map_err(failed)?;
        requests.push(match rows.next().map_err(failed)? {
            Some(row) => {
                let found = RequestRow::read(row).and_then(|row| row.remembered(last));
                Some(found.map_err(|corruption| corrupt(path, format!("request {}", key.id), corruption))?)
            }
            None => None,
        });
    }
    Ok(requests)
}

/// Verifies the rows and the index, unless there are so many that a start would take long. A row is verified when it is
/// read, too.
pub(super) fn verify_at_start(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let (first, last) = bounds(connection).map_err(|error| sqlite_error("read", path, &error))?;
    if last - first < VERIFIED_AT_START { verify_requests(connection, path) } else { Ok(()) }
}

/// Verifies every row and the index.
pub fn verify_requests(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let (first, last) = bounds(connection).map_err(failed)?;
    let mut statement =
        connection.prepare(&format!("SELECT {REQUEST_COLUMNS} FROM requests NOT INDEXED")).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let (mut expected, mut count) = (Sum::default(), 0);
    while let Some(row) = rows.next().map_err(failed)? {
        let number: i64 = row.get(0).map_err(failed)?;
        let read = RequestRow::read(row).and_then(|row| row.remembered(last).map(|_| row.hash));
        let hash = read.map_err(|corruption| corrupt(path, format!("row {number}"), corruption))?;
        expected.add(number.cast_unsigned(), &[&hash.to_le_bytes()]);
        count += 1;
    }
    if count != last - first + 1 {
        let detail = format!("{count} rows instead of {}", last - first + 1);
        return Err(StoreError::corrupt(path, "table requests", detail));
    }
    let sql = "SELECT hash, number FROM requests INDEXED BY requests_hash ORDER BY hash, number";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let (mut found, mut previous) = (Sum::default(), None);
    while let Some(row) = rows.next().map_err(failed)? {
        let entry = (row.get::<_, i64>(0).map_err(failed)?, row.get::<_, i64>(1).map_err(failed)?);
        if previous.replace(entry) >= Some(entry) {
            return Err(StoreError::corrupt(path, "the index of requests", "entries are out of order"));
        }
        found.add(entry.1.cast_unsigned(), &[&entry.0.to_le_bytes()]);
    }
    if found == expected {
        Ok(())
    } else {
        Err(StoreError::corrupt(path, "the index of requests", "entries do not match the rows"))
    }
}

/// Adds the request IDs of the tasks of a version that had no such table.
pub(super) fn take_over(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql =
        format!("SELECT {COLUMNS}, p.body, p.crc FROM tasks t LEFT JOIN payloads p ON p.seq = t.seq ORDER BY t.seq");
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut reader = RowReader::new(path);
    let mut number = 1;
    while let Some(row) = rows.next().map_err(failed)? {
        let (seq, task, payload) = reader.task_and_payload(row)?;
        let Some(key) = &task.spec.extras().request else { continue };
        let request = NewRequest {
            key: key.clone(),
            digest: key.digest.unwrap_or_else(|| task.spec.stored_digest(&payload)),
            namespace: task.spec.options.namespace.clone(),
            task: task.spec.id.clone(),
            submission: Revision(seq),
            at: task.status.submitted_at,
        };
        insert(connection, number, &request).map_err(|error| sqlite_error("write to", path, &error))?;
        number += 1;
    }
    Ok(())
}
