//! The queries of the projection.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::index_check::ExpectedEntries;
use super::rows::{self, COLUMNS, RowReader, add_result, corrupt_task, status_of};
use super::schema::Meta;
use crate::model::{Output, Revision, Task, TaskFilter, TaskId, TaskState};
use crate::store::error::StoreError;
use crate::store::page::{Page, PageBuilder, PageCursor, PageSize};
use crate::store::record::ended_attempt;
use crate::store::sqlite::sqlite_error;

/// Number of columns in [`COLUMNS`]; the columns of the result follow.
const RESULT_AT: usize = 17;
/// Replaces a table of bodies that a query does not need.
const EMPTY: &str = "(SELECT NULL AS seq, NULL AS body, NULL AS crc WHERE FALSE)";

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
    let sql = format!("SELECT {COLUMNS} FROM tasks t LEFT JOIN payloads p ON p.seq = t.seq ORDER BY t.seq");
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut reader = RowReader::new(path);
    let mut expected = ExpectedEntries::default();
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

pub(super) fn get(connection: &Connection, path: &Path, id: &TaskId) -> Result<Option<Task>, StoreError> {
    let filter = TaskFilter { ids: vec![id.clone()], ..TaskFilter::default() };
    let size = PageSize { rows: 1, bytes: usize::MAX, results: true };
    Ok(page(connection, path, &filter, Content { size, payloads: true }, None)?.tasks.pop())
}

/// The payload of the task that was submitted at a revision; `None` if there is no such task.
pub(super) fn payload(connection: &Connection, path: &Path, submission: Revision) -> Result<Option<Bytes>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = format!("SELECT {COLUMNS} FROM tasks t LEFT JOIN payloads p ON p.seq = t.seq WHERE t.seq = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query([submission.0.cast_signed()]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let (_, _, payload) = RowReader::new(path).task_and_payload(row)?;
    Ok(Some(payload.into_owned().into()))
}

pub(super) fn list(
    connection: &Connection,
    path: &Path,
    filter: &TaskFilter,
    size: PageSize,
    after: Option<PageCursor>,
) -> Result<Page, StoreError> {
    page(connection, path, filter, Content { size, payloads: false }, after)
}

#[derive(Clone, Copy)]
struct Content {
    size: PageSize,
    payloads: bool,
}

fn page(
    connection: &Connection,
    path: &Path,
    filter: &TaskFilter,
    content: Content,
    after: Option<PageCursor>,
) -> Result<Page, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let mut page = PageBuilder::new(content.size, Meta::load(connection, path)?.revision);
    let (sql, values) = select(filter, content, after);
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
    let mut reader = RowReader::new(path);
    while let Some(row) = rows.next().map_err(failed)? {
        let (seq, mut task) = if content.payloads {
            let (seq, mut task, payload) = reader.task_and_payload(row)?;
            Arc::make_mut(&mut task.spec).payload = payload.into();
            (seq, task)
        } else {
            reader.task(row)?
        };
        if content.size.results {
            let corrupt = |corruption| corrupt_task(path, "results", &task.spec.id, corruption);
            add_result(seq, &mut task.status, row, RESULT_AT).map_err(corrupt)?;
        } else {
            task.status.result = None;
        }
        if !filter.matches_task(&task) {
            return Err(corrupt_task(path, "tasks", &task.spec.id, "the index entry does not match the row"));
        }
        if !page.push(seq, task) {
            break;
        }
    }
    Ok(page.finish())
}

/// The statement for a page and its values. It reads one row more than the page may have.
fn select(filter: &TaskFilter, content: Content, after: Option<PageCursor>) -> (String, Vec<Value>) {
    let mut values = Vec::new();
    let mut wheres = String::from("TRUE");
    let text = |value: &dyn std::fmt::Display| Value::Text(value.to_string());
    // The first label drives the query, because its index is in the order of the listing.
    let from = match filter.labels.first() {
        Some((key, value)) => {
            wheres.push_str(" AND l.key = ? AND l.value = ?");
            values.extend([text(key), text(value)]);
            "labels l CROSS JOIN tasks t ON t.seq = l.seq"
        }
        None => "tasks t",
    };
    let order = if filter.labels.is_empty() { "t.seq" } else { "l.seq" };
    for (key, value) in filter.labels.iter().skip(1) {
        wheres.push_str(" AND EXISTS (SELECT 1 FROM labels m WHERE m.key = ? AND m.value = ? AND m.seq = t.seq)");
        values.extend([text(key), text(value)]);
    }
    let mut equal = |column: &str, value: Option<&dyn std::fmt::Display>| {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = write!(wheres, " AND t.{column} = ?");
            values.push(text(value));
        }
    };
    equal("batch", filter.batch.as_ref().map(|name| name as _));
    equal("pool", filter.pool.as_ref().map(|name| name as _));
    equal("handler", filter.handler.as_ref().map(|name| name as _));
    if !filter.ids.is_empty() {
        let _ = write!(wheres, " AND t.id IN ({})", vec!["?"; filter.ids.len()].join(","));
        values.extend(filter.ids.iter().map(|id| text(id)));
    }
    if !filter.namespaces.is_empty() {
        let _ = write!(wheres, " AND t.namespace IN ({})", vec!["?"; filter.namespaces.len()].join(","));
        values.extend(filter.namespaces.iter().map(|name| text(name)));
    }
    if !filter.priorities.is_empty() {
        let numbers: Vec<_> = filter.priorities.iter().map(|priority| (*priority as u8).to_string()).collect();
        let _ = write!(wheres, " AND t.priority IN ({})", numbers.join(","));
    }
    wheres.push_str(&states(&filter.states));
    let time = |at: u64| Value::Integer(i64::try_from(at).unwrap_or(i64::MAX));
    for (sign, at) in [(">=", filter.submitted_from), ("<", filter.submitted_until)] {
        if let Some(at) = at {
            let _ = write!(wheres, " AND t.submitted_at {sign} ?");
            values.push(time(at.0));
        }
    }
    if let Some(PageCursor(seq)) = after {
        let _ = write!(wheres, " AND {order} < ?");
        values.push(time(seq));
    }
    values.push(Value::Integer(i64::try_from(content.size.rows.saturating_add(1)).unwrap_or(i64::MAX)));
    // The columns of an unneeded table stay in the result, with NULL.
    let payloads = if content.payloads { "payloads" } else { EMPTY };
    let results = if content.size.results { "results" } else { EMPTY };
    let sql = format!(
        "SELECT {COLUMNS}, r.crc, r.body FROM {from} LEFT JOIN {payloads} p ON p.seq = t.seq \
         LEFT JOIN {results} r ON r.seq = t.seq WHERE {wheres} ORDER BY {order} DESC LIMIT ?"
    );
    (sql, values)
}

/// The states as literals: otherwise SQLite cannot choose the partial index on states.
fn states(states: &[TaskState]) -> String {
    let numbers: Vec<_> = states.iter().map(|state| (*state as u8).to_string()).collect();
    let indexed = [TaskState::Running, TaskState::Failed, TaskState::Cancelled];
    let list = numbers.join(",");
    match states {
        [] => String::new(),
        [one] if indexed.contains(one) => format!(" AND t.state = {list} AND t.state IN (3, 5, 6)"),
        _ => format!(" AND t.state IN ({list})"),
    }
}

pub(super) fn output(
    connection: &Connection,
    path: &Path,
    id: &TaskId,
    attempt: u32,
) -> Result<Option<(u32, Output)>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let Some((seq, status)) = status_of(connection, path, id)? else { return Ok(None) };
    let Some(attempt) = ended_attempt(&status, attempt) else { return Ok(None) };
    let mut statement =
        connection.prepare_cached("SELECT crc, body FROM outputs WHERE seq = ?1 AND attempt = ?2").map_err(failed)?;
    let mut rows = statement.query(params![seq.cast_signed(), attempt]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(Some((attempt, Output::default()))) };
    let output = rows::output(seq, attempt, row, 0);
    Ok(Some((attempt, output.map_err(|corruption| corrupt_task(path, "outputs", id, corruption))?)))
}
