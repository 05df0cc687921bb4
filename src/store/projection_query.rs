//! Questions to the projection, as SQL.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::projection_check::Expected;
use super::projection_rows::{
    COLUMNS, RowReader, add_result, body_checksum, corrupt, output as decode_output, status, status_of,
};
use super::projection_sql::Meta;
use super::record::{Damage, damage};
use super::sqlite::fault;
use super::{Page, PageCursor, PageSize, StoreError, weight};
use crate::model::{Output, RecoveredTask, Revision, Task, TaskFilter, TaskId, TaskState, TaskStatus};

/// Columns of [`COLUMNS`]; those of the result follow.
const RESULT_AT: usize = 17;
/// Stands for a table of bodies that nobody wants.
const NOTHING: &str = "(SELECT NULL AS seq, NULL AS body, NULL AS crc WHERE FALSE)";

/// Every task, in the order of submission, without results.
pub(super) fn recover(connection: &Connection, path: &Path) -> Result<(Vec<RecoveredTask>, Revision), StoreError> {
    let rows = Meta::load(connection, path)?.tasks;
    let mut tasks = Vec::with_capacity(usize::try_from(rows.min(10_000_000)).unwrap_or_default());
    let revision = each(connection, path, |task| tasks.push(task.into()))?;
    Ok((tasks, revision))
}

/// Hands out every task, in the order of submission, without results; verifies that it is every one, and
/// that the indexes lead to them.
pub(super) fn each(connection: &Connection, path: &Path, mut see: impl FnMut(Task)) -> Result<Revision, StoreError> {
    let fault = |error| fault("read", path, &error);
    let meta = Meta::load(connection, path)?;
    let sql = format!("SELECT {COLUMNS} FROM tasks t LEFT JOIN payloads p ON p.seq = t.seq ORDER BY t.seq");
    let mut statement = connection.prepare(&sql).map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    let mut reader = RowReader::new(path);
    let mut expected = Expected::default();
    let mut seen = 0;
    while let Some(row) = rows.next().map_err(fault)? {
        let (seq, mut task) = reader.task(row)?;
        task.status.result = None;
        let id = row.get_ref(1).map_err(fault)?.as_str().unwrap_or_default();
        expected.add(seq, id, &task);
        see(task);
        seen += 1;
    }
    if seen != meta.tasks {
        let text = format!("{seen} rows were found where {} were written", meta.tasks);
        return Err(corrupt(path, "tasks", "any", &damage(text)));
    }
    expected.verify(connection, path)?;
    Ok(meta.revision)
}

/// Verifies what is otherwise verified when somebody asks for it: large results, and outputs.
pub(super) fn verify_bodies(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let fault = |error| fault("read", path, &error);
    let sql = "SELECT t.seq, t.state, t.finished_at, t.status, t.status_crc, r.body, r.crc
        FROM tasks t LEFT JOIN results r ON r.seq = t.seq";
    let mut statement = connection.prepare(sql).map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        let seq = row.get::<_, i64>(0).map_err(fault)?.cast_unsigned();
        let added = status(seq, row, 1).and_then(|mut status| add_result(seq, &mut status, row, 5));
        added.map_err(|damage| corrupt(path, "results", &format!("of row {seq}"), &damage))?;
    }
    let mut statement = connection.prepare("SELECT seq, attempt, crc, body FROM outputs").map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        let seq = row.get::<_, i64>(0).map_err(fault)?.cast_unsigned();
        let attempt = row.get(1).map_err(fault)?;
        let read = kept_output(seq, attempt, row, 2);
        read.map_err(|damage| corrupt(path, "outputs", &format!("of row {seq}"), &damage))?;
    }
    Ok(())
}

/// One task with payload and result.
pub(super) fn get(connection: &Connection, path: &Path, id: &TaskId) -> Result<Option<Task>, StoreError> {
    let filter = TaskFilter { ids: vec![id.clone()], ..TaskFilter::default() };
    let size = PageSize { rows: 1, bytes: usize::MAX, results: true };
    Ok(page(connection, path, &filter, Wanted { size, payloads: true }, None)?.tasks.pop())
}

/// One page, newest first.
pub(super) fn list(
    connection: &Connection,
    path: &Path,
    filter: &TaskFilter,
    size: PageSize,
    after: Option<PageCursor>,
) -> Result<Page, StoreError> {
    page(connection, path, filter, Wanted { size, payloads: false }, after)
}

#[derive(Clone, Copy)]
struct Wanted {
    size: PageSize,
    payloads: bool,
}

fn page(
    connection: &Connection,
    path: &Path,
    filter: &TaskFilter,
    wanted: Wanted,
    after: Option<PageCursor>,
) -> Result<Page, StoreError> {
    let fault = |error| fault("read", path, &error);
    let mut page = Page { revision: Meta::load(connection, path)?.revision, ..Page::default() };
    let (sql, values) = select(filter, wanted, after);
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(fault)?;
    let reader = RowReader::new(path);
    let mut reader = if wanted.payloads { reader } else { reader.without_payloads() };
    let (mut last, mut bytes) = (None, 0);
    while let Some(row) = rows.next().map_err(fault)? {
        let (seq, mut task) = reader.task(row)?;
        if wanted.size.results {
            let broken = |damage| corrupt(path, "results", &task.spec.id.to_string(), &damage);
            add_result(seq, &mut task.status, row, RESULT_AT).map_err(broken)?;
        } else {
            task.status.result = None;
        }
        if !filter.matches_task(&task) {
            let text = damage("an index leads to a task that it should not");
            return Err(corrupt(path, "tasks", &task.spec.id.to_string(), &text));
        }
        if wanted.size.is_reached(&page, bytes, &task) {
            page.next = last.map(PageCursor);
            break;
        }
        bytes += weight(&task);
        page.tasks.push(task);
        last = Some(seq);
    }
    Ok(page)
}

/// The statement of a page, one row longer than the page, and its values.
fn select(filter: &TaskFilter, wanted: Wanted, after: Option<PageCursor>) -> (String, Vec<Value>) {
    let mut values = Vec::new();
    let mut wheres = String::from("TRUE");
    let text = |value: &dyn std::fmt::Display| Value::Text(value.to_string());
    // The first label leads, because its index is in the order of the listing.
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
    values.push(Value::Integer(i64::try_from(wanted.size.rows.saturating_add(1)).unwrap_or(i64::MAX)));
    // What is not wanted is not joined: its columns stay, empty.
    let payloads = if wanted.payloads { "payloads" } else { NOTHING };
    let results = if wanted.size.results { "results" } else { NOTHING };
    let sql = format!(
        "SELECT {COLUMNS}, r.body, r.crc FROM {from} LEFT JOIN {payloads} p ON p.seq = t.seq \
         LEFT JOIN {results} r ON r.seq = t.seq WHERE {wheres} ORDER BY {order} DESC LIMIT ?"
    );
    (sql, values)
}

/// The states as literals: only so can the index of the seldom ones be chosen.
fn states(states: &[TaskState]) -> String {
    let numbers: Vec<_> = states.iter().map(|state| (*state as u8).to_string()).collect();
    let seldom = [TaskState::Running, TaskState::Failed, TaskState::Cancelled];
    let list = numbers.join(",");
    match states {
        [] => String::new(),
        [one] if seldom.contains(one) => format!(" AND t.state = {list} AND t.state IN (3, 5, 6)"),
        _ => format!(" AND t.state IN ({list})"),
    }
}

/// What an attempt wrote; 0 asks for the last one that ended.
pub(super) fn output(
    connection: &Connection,
    path: &Path,
    id: &TaskId,
    attempt: u32,
) -> Result<Option<(u32, Output)>, StoreError> {
    let fault = |error| fault("read", path, &error);
    let Some((seq, status)) = status_of(connection, path, id)? else { return Ok(None) };
    let Some(wanted) = ended_attempt(&status, attempt) else { return Ok(None) };
    let mut statement =
        connection.prepare_cached("SELECT crc, body FROM outputs WHERE seq = ?1 AND attempt = ?2").map_err(fault)?;
    let mut rows = statement.query(params![seq.cast_signed(), wanted]).map_err(fault)?;
    let Some(row) = rows.next().map_err(fault)? else { return Ok(Some((wanted, Output::default()))) };
    let output = kept_output(seq, wanted, row, 0);
    let output = output.map_err(|damage| corrupt(path, "outputs", &id.to_string(), &damage))?;
    Ok(Some((wanted, output)))
}

/// An output from the columns `crc, body` that begin at `at`.
fn kept_output(seq: u64, attempt: u32, row: &Row<'_>, at: usize) -> Result<Output, Damage> {
    let crc: i64 = row.get(at).map_err(|error| damage(error.to_string()))?;
    let body = row.get_ref(at + 1).map_err(|error| damage(error.to_string()))?;
    let body = body.as_blob().map_err(|error| damage(error.to_string()))?;
    if crc != i64::from(body_checksum(seq ^ u64::from(attempt).rotate_left(32), body)) {
        return Err(damage("the checksum does not fit"));
    }
    decode_output(body)
}

/// The attempt that is meant, when it has ended.
pub(super) fn ended_attempt(status: &TaskStatus, attempt: u32) -> Option<u32> {
    let running = u32::from(status.state == TaskState::Running);
    let last = status.attempt.saturating_sub(running);
    let wanted = if attempt == 0 { last } else { attempt };
    (1..=last).contains(&wanted).then_some(wanted)
}
