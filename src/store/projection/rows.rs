//! Converts tasks to rows of the projection and back, and verifies their checksums.

use std::borrow::Cow;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use prost::Message;
use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, Row};

use crate::model::{Output, Payload, Revision, Task, TaskId, TaskOptions, TaskSpec, TaskState, TaskStatus};
use crate::store::error::StoreError;
use crate::store::record::{
    Corruption, OptionsRecord, OutputRecord, PayloadRecord, SpecRecord, StatusRecord, checksum,
};
use crate::store::sqlite::sqlite_error;

/// Larger payloads and results are stored in tables of their own, so that a change of state does not rewrite them.
const INLINE_BYTES_MAX: usize = 1024;

/// The columns of `tasks t` that [`RowReader::task`] reads. Those of its payload follow, `p.body, p.crc`.
pub(super) const COLUMNS: &str = "t.seq, t.id, t.namespace, t.priority, t.pool, t.handler, t.batch, t.submitted_at, \
     t.options, t.spec, t.spec_crc, t.state, t.finished_at, t.status, t.status_crc";

/// The columns of a row that only an update of the task changes.
pub(super) struct SpecRow {
    pub(super) id: String,
    pub(super) spec: Vec<u8>,
    pub(super) crc: u32,
    /// The payload with its checksum, when it is stored separately.
    pub(super) payload: Option<(Bytes, u32)>,
}

impl SpecRow {
    pub(super) fn new(seq: u64, spec: &Arc<TaskSpec>, submitted_at: u64, options: &[u8]) -> Self {
        Self::of_record(seq, (&spec.id, spec.into()), submitted_at, (&spec.options, options))
    }

    /// `options`: with their bytes.
    pub(super) fn of_record(
        seq: u64,
        (id, mut record): (&TaskId, SpecRecord),
        submitted_at: u64,
        (shared, options): (&TaskOptions, &[u8]),
    ) -> Self {
        let id = id.to_string();
        let mut payload = None;
        if record.payload.len() > INLINE_BYTES_MAX {
            record.payload_separate = true;
            let body = std::mem::take(&mut record.payload);
            payload = Some((body.clone(), body_checksum(seq, &body)));
        }
        let bytes = record.encode_to_vec();
        let columns = SpecColumns {
            id: &id,
            namespace: shared.namespace.as_str(),
            priority: shared.priority as i64,
            pool: shared.pool.as_str(),
            handler: shared.handler.as_str(),
            batch: shared.batch.as_ref().map_or("", |batch| batch.as_str()),
            submitted_at,
            options,
            spec: &bytes,
        };
        let crc = columns.checksum(seq);
        Self { id, spec: bytes, crc, payload }
    }
}

struct SpecColumns<'a> {
    id: &'a str,
    namespace: &'a str,
    priority: i64,
    pool: &'a str,
    handler: &'a str,
    batch: &'a str,
    submitted_at: u64,
    options: &'a [u8],
    spec: &'a [u8],
}

impl SpecColumns<'_> {
    fn checksum(&self, seq: u64) -> u32 {
        // Names contain no NUL byte, so it separates them.
        checksum(&[
            &seq.to_le_bytes(),
            &self.priority.to_le_bytes(),
            &self.submitted_at.to_le_bytes(),
            self.id.as_bytes(),
            b"\0",
            self.namespace.as_bytes(),
            b"\0",
            self.pool.as_bytes(),
            b"\0",
            self.handler.as_bytes(),
            b"\0",
            self.batch.as_bytes(),
            b"\0",
            self.options,
            self.spec,
        ])
    }
}

/// Whether a result is stored in the row of its task.
pub(super) fn is_inline(result: &Payload) -> bool {
    result.data.len() <= INLINE_BYTES_MAX
}

/// The bytes and the checksum of a status, without a large result.
pub(super) fn status_row(seq: u64, status: &TaskStatus) -> (Vec<u8>, u32) {
    let mut record = StatusRecord::from(status);
    record.result = status.result.as_ref().filter(|result| is_inline(result)).map(Into::into);
    let bytes = record.encode_to_vec();
    let crc = status_checksum(seq, status.state as i64, status.finished_at.map(|at| at.0), &bytes);
    (bytes, crc)
}

fn status_checksum(seq: u64, state: i64, finished_at: Option<u64>, bytes: &[u8]) -> u32 {
    let finished_at = finished_at.unwrap_or_default();
    checksum(&[&seq.to_le_bytes(), &state.to_le_bytes(), &finished_at.to_le_bytes(), bytes])
}

/// The checksum of a payload, result or output that is stored separately.
pub(super) fn body_checksum(key: u64, body: &[u8]) -> u32 {
    checksum(&[&key.to_le_bytes(), body])
}

pub(super) fn options_bytes(options: &TaskOptions) -> Vec<u8> {
    OptionsRecord::from(options).encode_to_vec()
}

pub(super) fn result_bytes(result: &Payload) -> Vec<u8> {
    PayloadRecord::from(result).encode_to_vec()
}

pub(super) fn output_bytes(output: &Output) -> Vec<u8> {
    OutputRecord::from(output).encode_to_vec()
}

/// The key of an output in [`body_checksum`].
pub(super) fn output_key(seq: u64, attempt: u32) -> u64 {
    seq ^ u64::from(attempt).rotate_left(32)
}

/// An output from the columns `crc, body` at `at`.
pub(super) fn output(seq: u64, attempt: u32, row: &Row<'_>, at: usize) -> Result<Output, Corruption> {
    let body = blob(row, at + 1)?;
    if number(row, at)? != Some(body_checksum(output_key(seq, attempt), body).into()) {
        return Err(Corruption::new("checksum mismatch"));
    }
    Ok(OutputRecord::decode(body)?.into_model())
}

/// Converts rows to tasks. Tasks with equal options share them.
pub(super) struct RowReader<'a> {
    path: &'a Path,
    options: HashMap<Box<[u8]>, Arc<TaskOptions>>,
}

struct ParsedRow {
    /// Without the payload.
    task: Task,
    payload: StoredPayload,
}

enum StoredPayload {
    Inline(Bytes),
    /// In the table `payloads`.
    Separate,
}

impl<'a> RowReader<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, options: HashMap::new() }
    }

    /// One task from [`COLUMNS`]; its payload and a large result are missing.
    pub(super) fn task(&mut self, row: &Row<'_>) -> Result<(u64, Task), StoreError> {
        let seq = self.seq(row)?;
        let parsed = self.parse(seq, row).map_err(|corruption| self.corrupt(seq, row, corruption))?;
        Ok((seq, parsed.task))
    }

    /// The record of the spec from [`COLUMNS`], with a payload that is stored in the row, and the options.
    pub(super) fn spec_record(&mut self, row: &Row<'_>) -> Result<(SpecRecord, Arc<TaskOptions>), StoreError> {
        let (seq, task) = self.task(row)?;
        let record = blob(row, 9).and_then(|spec| Ok(SpecRecord::decode(spec)?));
        Ok((record.map_err(|corruption| self.corrupt(seq, row, corruption))?, task.spec.options.clone()))
    }

    /// One task from [`COLUMNS`], and its payload without a copy; a large result is missing.
    pub(super) fn task_and_payload<'r>(&mut self, row: &'r Row<'_>) -> Result<(u64, Task, Cow<'r, [u8]>), StoreError> {
        let seq = self.seq(row)?;
        let parsed = self.parse(seq, row).and_then(|parsed| Ok((payload(seq, row, parsed.payload)?, parsed.task)));
        let (payload, task) = parsed.map_err(|corruption| self.corrupt(seq, row, corruption))?;
        Ok((seq, task, payload))
    }

    fn seq(&self, row: &Row<'_>) -> Result<u64, StoreError> {
        let seq = row.get::<_, i64>(0).map_err(|error| sqlite_error("read", self.path, &error))?;
        Ok(seq.cast_unsigned())
    }

    fn corrupt(&self, seq: u64, row: &Row<'_>, corruption: Corruption) -> StoreError {
        let id = row.get_ref(1).ok().and_then(|id| id.as_str().ok()).unwrap_or("?");
        corrupt_task(self.path, "tasks", format!("{id} (row {seq})"), corruption)
    }

    fn parse(&mut self, seq: u64, row: &Row<'_>) -> Result<ParsedRow, Corruption> {
        let wrong_type = |error: FromSqlError| Corruption::new(error.to_string());
        let text = |index| text(row, index);
        let blob = |index| blob(row, index);
        let id = text(1)?;
        let submitted_at = number(row, 7)?.unwrap_or_default().cast_unsigned();
        let (options, spec) = (blob(8)?, blob(9)?);
        let columns = SpecColumns {
            id,
            namespace: text(2)?,
            priority: number(row, 3)?.unwrap_or(-1),
            pool: text(4)?,
            handler: text(5)?,
            batch: reference(row, 6)?.as_str_or_null().map_err(wrong_type)?.unwrap_or(""),
            submitted_at,
            options,
            spec,
        };
        if number(row, 10)? != Some(columns.checksum(seq).into()) {
            return Err(Corruption::new("spec checksum mismatch"));
        }
        let status = status(seq, row, 11)?;
        let options = self.share(options)?;
        let mut record = SpecRecord::decode(spec)?;
        let inline = std::mem::take(&mut record.payload);
        let payload = if record.payload_separate { StoredPayload::Separate } else { StoredPayload::Inline(inline) };
        let id = TaskId::parse(id).map_err(|error| Corruption::new(error.to_string()))?;
        let spec = Arc::new(record.into_model(id, options, status.submitted_at)?);
        Ok(ParsedRow { task: Task { spec, status }, payload })
    }

    fn share(&mut self, bytes: &[u8]) -> Result<Arc<TaskOptions>, Corruption> {
        if let Some(options) = self.options.get(bytes) {
            return Ok(Arc::clone(options));
        }
        let options = Arc::new(OptionsRecord::decode(bytes)?.into_model()?);
        self.options.insert(bytes.into(), Arc::clone(&options));
        Ok(options)
    }
}

/// Verifies a payload that is stored separately.
fn payload<'r>(seq: u64, row: &'r Row<'_>, stored: StoredPayload) -> Result<Cow<'r, [u8]>, Corruption> {
    let body = match stored {
        StoredPayload::Inline(bytes) => return Ok(Cow::Owned(bytes.into())),
        StoredPayload::Separate => reference(row, 15)?.as_blob_or_null(),
    };
    let body = body.map_err(|error| Corruption::new(error.to_string()))?;
    let body = body.ok_or_else(|| Corruption::new("the payload is missing"))?;
    if number(row, 16)? != Some(body_checksum(seq, body).into()) {
        return Err(Corruption::new("payload checksum mismatch"));
    }
    Ok(Cow::Borrowed(body))
}

/// The status from the columns `state, finished_at, status, status_crc` at `at`.
pub(super) fn status(seq: u64, row: &Row<'_>, at: usize) -> Result<TaskStatus, Corruption> {
    let state = number(row, at)?.unwrap_or_default();
    let finished_at = number(row, at + 1)?.map(i64::cast_unsigned);
    let bytes = blob(row, at + 2)?;
    if number(row, at + 3)? != Some(status_checksum(seq, state, finished_at, bytes).into()) {
        return Err(Corruption::new("status checksum mismatch"));
    }
    StatusRecord::decode(bytes)?.into_model(Revision(seq))
}

/// Row and status of one task.
pub(super) fn status_of(
    connection: &Connection,
    path: &Path,
    id: &TaskId,
) -> Result<Option<(u64, TaskStatus)>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let text = id.to_string();
    let sql = "SELECT seq, state, finished_at, status, status_crc FROM tasks WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([&text]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let seq = row.get::<_, i64>(0).map_err(failed)?.cast_unsigned();
    let status = status(seq, row, 1).map_err(|corruption| corrupt_task(path, "tasks", &text, corruption))?;
    Ok(Some((seq, status)))
}

/// Whether the result of a status from its row is in the table of results.
pub(super) fn has_separate_result(status: &TaskStatus) -> bool {
    status.state == TaskState::Completed && status.result.is_none()
}

/// Adds a large result from the columns `crc, body` of the table `results` at `at`.
pub(super) fn add_result(seq: u64, status: &mut TaskStatus, row: &Row<'_>, at: usize) -> Result<(), Corruption> {
    if !has_separate_result(status) {
        return Ok(());
    }
    if reference(row, at + 1)?.as_blob_or_null().ok().flatten().is_none() {
        return Err(Corruption::new("the result is missing"));
    }
    status.result = Some(result(seq, row, at)?);
    Ok(())
}

/// A large result from the columns `crc, body` at `at`.
pub(super) fn result(seq: u64, row: &Row<'_>, at: usize) -> Result<Payload, Corruption> {
    let body = blob(row, at + 1)?;
    if number(row, at)? != Some(body_checksum(seq, body).into()) {
        return Err(Corruption::new("result checksum mismatch"));
    }
    Ok(PayloadRecord::decode(body)?.into_model())
}

pub(super) fn corrupt_task(path: &Path, table: &str, task: impl Display, detail: impl Display) -> StoreError {
    StoreError::corrupt(path, format!("table {table}, task {task}"), detail)
}

fn reference<'a>(row: &'a Row<'_>, index: usize) -> Result<ValueRef<'a>, Corruption> {
    row.get_ref(index).map_err(|error| Corruption::new(error.to_string()))
}

pub(super) fn text<'a>(row: &'a Row<'_>, index: usize) -> Result<&'a str, Corruption> {
    reference(row, index)?.as_str().map_err(|error| Corruption::new(error.to_string()))
}

pub(super) fn blob<'a>(row: &'a Row<'_>, index: usize) -> Result<&'a [u8], Corruption> {
    reference(row, index)?.as_blob().map_err(|error| Corruption::new(error.to_string()))
}

pub(super) fn number(row: &Row<'_>, index: usize) -> Result<Option<i64>, Corruption> {
    reference(row, index)?.as_i64_or_null().map_err(|error| Corruption::new(error.to_string()))
}
