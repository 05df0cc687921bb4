//! The queries of the projection, apart from listings.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::index_check::ExpectedEntries;
use super::rows::{self, COLUMNS, RowReader, add_result, corrupt_task};
use super::schema::Meta;
use crate::model::{Output, Revision, Task, TaskId, TaskOptions};
use crate::store::error::StoreError;
use crate::store::record::SpecRecord;
use crate::store::sqlite::sqlite_error;

/// Number of columns of a task and its payload; the columns of the result follow.
pub(super) const RESULT_AT: usize = 17;

/// Calls `visit` with every task, in the order of submission and without its result, with its payload. Returns the
/// revision of the projection, and the entries that other tables must have. Keeps one task in memory at a time. Verifies
/// that no row is missing and that the indexes match the rows.
pub fn for_each_task(
    connection: &Connection,
    path: &Path,
    mut visit: impl FnMut(Task, &[u8]),
) -> Result<(Revision, ExpectedEntries), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let meta = Meta::load(connection, path)?;
    let sql = select_rows(Bodies { payloads: true, results: false }, "TRUE ORDER BY t.seq");
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut reader = RowReader::new(path);
    let mut expected = ExpectedEntries::new(connection, path)?;
    let mut count = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        let (seq, mut task, payload) = reader.task_and_payload(row)?;
        let id = row.get_ref(1).map_err(failed)?.as_str().unwrap_or_default();
        expected.add(seq, id, &task);
        task.status.result = None;
        visit(task, &payload);
        count += 1;
    }
    if count != meta.tasks {
        return Err(StoreError::corrupt(path, "table tasks", format!("{count} rows instead of {}", meta.tasks)));
    }
    expected.verify(connection, path)?;
    Ok((meta.revision, expected))
}

/// One task with its result, and `with_payload` also with its payload.
pub(super) fn get(
    connection: &Connection,
    path: &Path,
    id: &TaskId,
    with_payload: bool,
) -> Result<Option<Task>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = select_rows(Bodies { payloads: with_payload, results: true }, "t.id = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query([id.to_string()]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let mut reader = RowReader::new(path);
    let (seq, mut task) = if with_payload {
        let (seq, mut task, payload) = reader.task_and_payload(row)?;
        Arc::make_mut(&mut task.spec).payload = payload.into();
        (seq, task)
    } else {
        reader.task(row)?
    };
    if task.spec.id != *id {
        return Err(corrupt_task(path, "tasks", id, "the index entry does not match the row"));
    }
    let corrupt = |corruption| corrupt_task(path, "results", id, corruption);
    add_result(seq, &mut task.status, row, RESULT_AT).map_err(corrupt)?;
    Ok(Some(task))
}

/// The stored spec of the task in this row, and its options.
pub(super) fn spec_record(
    connection: &Connection,
    path: &Path,
    seq: u64,
) -> Result<(SpecRecord, Arc<TaskOptions>), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = select_rows(Bodies { payloads: false, results: false }, "t.seq = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query([seq.cast_signed()]).map_err(failed)?;
    let missing = || StoreError::corrupt(path, "table tasks", format!("row {seq} is missing"));
    RowReader::new(path).spec_record(rows.next().map_err(failed)?.ok_or_else(missing)?)
}

/// Bytes of the bodies of a task that [`get`] reads beside its row. Does not read them.
pub(super) fn body_bytes(
    connection: &Connection,
    path: &Path,
    id: &TaskId,
    with_payload: bool,
) -> Result<u64, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = "SELECT length(p.body), length(r.body) FROM tasks t
        LEFT JOIN payloads p ON p.seq = t.seq LEFT JOIN results r ON r.seq = t.seq WHERE t.id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let lengths = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
    let lengths = statement.query_row([id.to_string()], lengths).optional().map_err(failed)?;
    let (payload, result) = lengths.unwrap_or_default();
    Ok([payload.filter(|_| with_payload), result].into_iter().flatten().map(i64::cast_unsigned).sum())
}

/// The payload of the task that was submitted at a revision; `None` if there is no such task.
pub(super) fn payload(connection: &Connection, path: &Path, submission: Revision) -> Result<Option<Bytes>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = select_rows(Bodies { payloads: true, results: false }, "t.seq = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query([submission.0.cast_signed()]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let (_, _, payload) = RowReader::new(path).task_and_payload(row)?;
    Ok(Some(payload.into_owned().into()))
}

/// The large bodies that a query reads beside the rows.
#[derive(Clone, Copy)]
pub(super) struct Bodies {
    pub(super) payloads: bool,
    pub(super) results: bool,
}

/// The statement that reads rows of `tasks t`. The columns of bodies that are not needed are NULL.
pub(super) fn select_rows(bodies: Bodies, condition: &str) -> String {
    let (payload, payloads) = match bodies.payloads.then_some("LEFT JOIN payloads p ON p.seq = t.seq") {
        Some(join) => ("p.body, p.crc", join),
        None => ("NULL, NULL", ""),
    };
    let (result, results) = match bodies.results.then_some("LEFT JOIN results r ON r.seq = t.seq") {
        Some(join) => ("r.crc, r.body", join),
        None => ("NULL, NULL", ""),
    };
    format!("SELECT {COLUMNS}, {payload}, {result} FROM tasks t {payloads} {results} WHERE {condition}")
}

/// The output of an attempt of the task that was submitted at a revision; empty if the table has none.
pub(super) fn output(
    connection: &Connection,
    path: &Path,
    id: &TaskId,
    submission: Revision,
    attempt: u32,
) -> Result<Output, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let mut statement =
        connection.prepare_cached("SELECT crc, body FROM outputs WHERE seq = ?1 AND attempt = ?2").map_err(failed)?;
    let mut rows = statement.query(params![submission.0.cast_signed(), attempt]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(Output::default()) };
    let output = rows::output(submission.0, attempt, row, 0);
    output.map_err(|corruption| corrupt_task(path, "outputs", id, corruption))
}
