//! The transactions that write the projection: the events of many commits, folded to the last state of each task.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::{Entry, EntryRef};
use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::entities::Entities;
use super::kinds::Kinds;
use super::query::spec_record;
use super::recent::Recent;
use super::requests::{NewRequest, RequestTable};
use super::rows::{
    SpecRow, body_checksum, is_inline, options_bytes, output_bytes, output_key, result_bytes, status_of, status_row,
};
use super::schema::Meta;
use super::subjects::store_subjects;
use super::submission_times::SubmissionTimes;
use super::tokens::PendingTokens;
use super::updated_spec::UpdatedSpec;
use crate::model::batch::BatchKeyRef;
use crate::model::batch_state::{batch_of, fold_batch, fold_task_into_batch};
use crate::model::schedule_state::{fold_schedule, fold_task_into_schedule, schedule_of};
use crate::model::{
    Batch, BatchId, BatchKey, Event, Output, Revision, Schedule, TaskChange, TaskEvent, TaskId, TaskOptions, TaskSpec,
    TaskState, TaskStatus,
};
use crate::store::error::StoreError;
use crate::store::record::{SpecRecord, Subjects, advance, output_of, submitted};
use crate::store::sqlite::sqlite_error;
use crate::store::traits::Commit;

/// About the number of rows in one transaction: few enough that its pages fit into the cache and the log.
const ROWS_MAX: usize = 32_768;
/// About the bytes of payloads, results and outputs in one transaction.
const TRANSACTION_BYTES_MAX: usize = 4 << 20;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) meta: Meta,
    path: PathBuf,
    /// As last written.
    subjects: Subjects,
    /// `None` until it is needed.
    kinds: Option<Kinds>,
    submission_times: Arc<Mutex<SubmissionTimes>>,
    requests: RequestTable,
    /// Rows of recently written tasks that have not ended.
    unfinished: Recent<TaskId, (u64, Box<PendingRow>)>,
    /// Row of recently written tasks that have ended; needed only to delete them.
    ended: Recent<TaskId, u64>,
    changes: Changes,
}

/// What the next transaction writes. A task that is submitted and deleted meanwhile leaves nothing.
#[derive(Default)]
struct Changes {
    /// The last revision that is folded; that of the tables at first.
    revision: Revision,
    tasks: HashMap<TaskId, PendingTask>,
    /// Number of tasks with a row to write.
    rows: usize,
    /// About the bytes of their payloads, results and outputs.
    bytes: usize,
    /// Request IDs of all submissions, also of tasks that are deleted in the same transaction.
    requests: Vec<NewRequest>,
    batches: Entities<Batch>,
    schedules: Entities<Schedule>,
    tokens: PendingTokens,
    /// Events of other subjects.
    others: Vec<Event>,
}

#[derive(Default)]
struct PendingTask {
    /// The row to delete.
    deleted: Option<(u64, StoredRow)>,
    /// With its number, by which rows are sorted without a look at each.
    row: Option<(u64, Box<PendingRow>)>,
}

struct PendingRow {
    origin: Origin,
    status: TaskStatus,
    /// The new spec of a stored row.
    updated: Option<Box<UpdatedSpec>>,
    outputs: Vec<(u32, Output)>,
}

enum Origin {
    /// The row must be inserted.
    New(Arc<TaskSpec>),
    Stored(StoredRow),
}

/// What other tables contain of a row as it was last written.
struct StoredRow {
    state: TaskState,
    options: Arc<TaskOptions>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        path: &Path,
        meta: Meta,
        subjects: Subjects,
        submission_times: Arc<Mutex<SubmissionTimes>>,
        requests: RequestTable,
    ) -> Self {
        Self {
            connection,
            meta,
            path: path.to_owned(),
            subjects,
            kinds: None,
            submission_times,
            requests,
            unfinished: Recent::default(),
            ended: Recent::default(),
            changes: Changes { revision: meta.revision, ..Changes::default() },
        }
    }

    /// The last revision that is written or folded.
    pub(super) fn folded(&self) -> Revision {
        self.changes.revision
    }

    /// Whether [`Writer::store`] should be called before more is added.
    pub(super) fn is_full(&self) -> bool {
        let changes = &self.changes;
        changes.rows
            + changes.requests.len()
            + changes.batches.changed()
            + changes.schedules.changed()
            + changes.tokens.len()
            >= ROWS_MAX
            || changes.bytes >= TRANSACTION_BYTES_MAX
    }

    /// Folds the events after [`Writer::folded`]. After an error, everything after [`Meta::revision`] must be added again.
    pub(super) fn add(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let mut changes = std::mem::take(&mut self.changes);
        let added = self.try_add(&mut changes, commit);
        self.changes = changes;
        added.inspect_err(|_| self.discard())
    }

    /// Writes what was added, in one transaction. One that fails changes nothing, and everything must be added again.
    pub(super) fn store(&mut self) -> Result<(), StoreError> {
        let mut changes = std::mem::take(&mut self.changes);
        let stored = self.try_store(&mut changes);
        match stored {
            Ok(()) => {
                // The empty table keeps its memory.
                let Changes { tasks, mut batches, mut schedules, .. } = changes;
                batches.remember();
                schedules.remember();
                self.changes =
                    Changes { revision: self.meta.revision, tasks, batches, schedules, ..Changes::default() };
            }
            Err(_) => self.discard(),
        }
        stored
    }

    /// Forgets what is not written.
    fn discard(&mut self) {
        self.changes = Changes { revision: self.meta.revision, ..Changes::default() };
        // The caches may be ahead of the tables.
        self.clear_caches();
        // It has written nothing.
        let _ = self.end_reads();
    }

    fn clear_caches(&mut self) {
        self.kinds = None;
        self.unfinished = Recent::default();
        self.ended = Recent::default();
        self.changes.batches.forget_written();
        self.changes.schedules.forget_written();
    }

    /// Frees the memory that only speeds up writing.
    pub(super) fn release_memory(&mut self) {
        self.clear_caches();
        self.changes.tasks.shrink_to_fit();
        if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
            tracing::debug!(%error, "failed to shrink the projection's page cache");
        }
    }

    fn try_add(&mut self, changes: &mut Changes, commit: &Commit) -> Result<(), StoreError> {
        // So that not each read takes the locks of one of its own.
        if self.connection.is_autocommit() {
            let begun = self.connection.execute_batch("BEGIN");
            begun.map_err(|error| sqlite_error("read", &self.path, &error))?;
        }
        for event in &commit.events {
            let revision = event.revision();
            if revision <= changes.revision {
                continue;
            }
            if revision != changes.revision.next() {
                let detail = format!("revision {revision} does not follow {}", changes.revision);
                return Err(StoreError::corrupt(&self.path, "table tasks", detail));
            }
            changes.revision = revision;
            match event {
                Event::Task(event) => {
                    changes.tokens.fold(event);
                    if self.fold(changes, event)? {
                        self.fold_into_entities(changes, event)?;
                    }
                }
                Event::Batch(event) => {
                    let BatchKey { namespace, id } = &event.batch;
                    let key = BatchKeyRef { namespace, id };
                    fold_batch(changes.batches.get(&self.connection, &self.path, &key)?, event);
                }
                Event::Schedule(event) => {
                    let key = event.schedule.by_ref();
                    fold_schedule(changes.schedules.get(&self.connection, &self.path, &key)?, event);
                }
                Event::Pool(_) | Event::Handler(_) => changes.others.push(event.clone()),
            }
        }
        Ok(())
    }

    /// Ends the transaction in which [`Writer::add`] reads.
    pub(super) fn end_reads(&self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        let ended = self.connection.execute_batch("COMMIT");
        ended.map_err(|error| sqlite_error("read", &self.path, &error))
    }

    fn try_store(&mut self, changes: &mut Changes) -> Result<(), StoreError> {
        self.end_reads()?;
        if changes.revision == self.meta.revision {
            return Ok(());
        }
        // In the order of the tables, so that each page is visited once; and nearly in the order of the rows in memory.
        let mut tasks: Vec<_> = changes.tasks.drain().collect();
        tasks.sort_unstable_by_key(|(_, task)| task.row.as_ref().map(|(seq, _)| *seq));
        let mut meta = Meta { revision: changes.revision, ..self.meta };
        let mut subjects = None;
        for event in &changes.others {
            subjects.get_or_insert_with(|| self.subjects.clone()).apply(event);
        }
        let mut kinds = match self.kinds.take() {
            Some(kinds) => kinds,
            None => Kinds::load(&self.connection, &self.path)?,
        };
        let mut requests = self.requests;
        let mut transact = || -> rusqlite::Result<Meta> {
            let transaction = self.connection.unchecked_transaction()?;
            let mut tables = Tables { connection: &transaction, kinds: &mut kinds };
            store_tasks(&mut tables, &tasks, &mut meta, &self.submission_times)?;
            if let Some(subjects) = &subjects {
                store_subjects(&transaction, subjects)?;
            }
            requests.write(&transaction, &changes.requests)?;
            changes.batches.store(&transaction)?;
            changes.schedules.store(&transaction)?;
            changes.tokens.store(&transaction)?;
            meta.store(&transaction)?;
            transaction.commit()?;
            Ok(meta)
        };
        self.meta = transact().map_err(|error| sqlite_error("write to", &self.path, &error))?;
        self.kinds = Some(kinds);
        self.requests = requests;
        if let Some(subjects) = subjects {
            self.subjects = subjects;
        }
        self.remember(tasks);
        Ok(())
    }

    /// Folds an event of a task into what else it changes.
    fn fold_into_entities(&self, changes: &mut Changes, event: &TaskEvent) -> Result<(), StoreError> {
        if let Some(key) = batch_of(event) {
            fold_task_into_batch(changes.batches.get(&self.connection, &self.path, &key)?, event);
        }
        if let Some(key) = schedule_of(event)
            && let Some(schedule) = changes.schedules.get(&self.connection, &self.path, &key)?
        {
            fold_task_into_schedule(schedule, event);
        }
        Ok(())
    }

    /// Returns false if the task is unknown: after a rebuild from a trimmed journal, its submission may be missing.
    fn fold(&mut self, changes: &mut Changes, event: &TaskEvent) -> Result<bool, StoreError> {
        let task = match changes.tasks.entry_ref(&event.task) {
            EntryRef::Occupied(known) => known.into_mut(),
            EntryRef::Vacant(new) => {
                let task = self.load(event)?;
                changes.rows += usize::from(task.row.is_some());
                new.insert(task)
            }
        };
        changes.bytes += event.weight();
        match &event.change {
            TaskChange::Submitted { spec } => {
                changes.requests.extend(NewRequest::of(event, spec));
                let (seq, status) = (event.revision.0, submitted(event));
                let origin = Origin::New(Arc::clone(spec));
                task.row = Some((seq, Box::new(PendingRow { origin, status, updated: None, outputs: Vec::new() })));
                changes.rows += 1;
            }
            TaskChange::Deleted => {
                let Some((seq, row)) = task.row.take() else { return Ok(task.deleted.is_some()) };
                changes.rows -= 1;
                let result = row.status.result.as_ref().map_or(0, |result| result.data.len());
                changes.bytes = changes.bytes.saturating_sub(result);
                match row.origin {
                    Origin::New(spec) => {
                        changes.bytes = changes.bytes.saturating_sub(spec.payload.len());
                        if task.deleted.is_none() {
                            changes.tasks.remove(&event.task);
                        }
                    }
                    Origin::Stored(stored) => task.deleted = Some((seq, stored)),
                }
            }
            _ => {
                let Some((seq, row)) = &mut task.row else { return Ok(false) };
                row.update(event, || spec_record(&self.connection, &self.path, *seq))?;
                advance(&mut row.status, event);
                if let Some(output) = output_of(event) {
                    row.outputs.push((event.attempt, output.clone()));
                }
            }
        }
        Ok(true)
    }

    /// The task of the event as last written.
    fn load(&mut self, event: &TaskEvent) -> Result<PendingTask, StoreError> {
        let id = &event.task;
        let stored = |state| StoredRow { state, options: Arc::clone(&event.options) };
        match &event.change {
            TaskChange::Submitted { .. } => return Ok(PendingTask::default()),
            TaskChange::Deleted => {
                if let Some(seq) = self.ended.remove(id) {
                    return Ok(PendingTask { deleted: Some((seq, stored(event.state))), ..PendingTask::default() });
                }
            }
            _ => {}
        }
        let row = match self.unfinished.remove(id) {
            Some(row) => Some(row),
            None => status_of(&self.connection, &self.path, id)?.map(|(seq, status)| {
                let origin = Origin::Stored(stored(status.state));
                (seq, Box::new(PendingRow { origin, status, updated: None, outputs: Vec::new() }))
            }),
        };
        Ok(PendingTask { deleted: None, row })
    }

    fn remember(&mut self, tasks: Vec<(TaskId, PendingTask)>) {
        for (id, task) in tasks {
            let Some((seq, row)) = task.row else { continue };
            if row.status.state.is_terminal() {
                self.ended.insert(id, seq);
            } else {
                self.unfinished.insert(id, (seq, row.written()));
            }
        }
    }
}

impl PendingRow {
    /// Replaces what an update of the task has changed.
    fn update(
        &mut self,
        event: &TaskEvent,
        stored_spec: impl FnOnce() -> Result<(SpecRecord, Arc<TaskOptions>), StoreError>,
    ) -> Result<(), StoreError> {
        let TaskChange::Updated { delay, expires_after, .. } = event.change else { return Ok(()) };
        match (&mut self.origin, &mut self.updated) {
            (Origin::New(spec), _) => Arc::make_mut(spec).update(Arc::clone(&event.options), delay, expires_after),
            (Origin::Stored(_), Some(updated)) => updated.update(event),
            (Origin::Stored(stored), none) => {
                let (record, options) = stored_spec()?;
                // The event has the new ones.
                stored.options = options;
                none.insert(Box::new(UpdatedSpec::new(event, record))).update(event);
            }
        }
        Ok(())
    }

    /// The row as it is stored now.
    fn written(mut self: Box<Self>) -> Box<Self> {
        let options = match (self.updated.take(), self.origin) {
            (Some(updated), _) => updated.options,
            (None, Origin::New(spec)) => Arc::clone(&spec.options),
            (None, Origin::Stored(stored)) => stored.options,
        };
        self.origin = Origin::Stored(StoredRow { state: self.status.state, options });
        self.outputs = Vec::new();
        self
    }
}

/// The tables inside a transaction.
struct Tables<'a> {
    connection: &'a Connection,
    kinds: &'a mut Kinds,
}

type NumberedRow<'a> = (u64, &'a PendingRow);

fn store_tasks(
    tables: &mut Tables<'_>,
    tasks: &[(TaskId, PendingTask)],
    meta: &mut Meta,
    times: &Mutex<SubmissionTimes>,
) -> rusqlite::Result<()> {
    let mut deleted: Vec<_> = tasks.iter().filter_map(|(_, task)| task.deleted.as_ref()).collect();
    deleted.sort_unstable_by_key(|(seq, _)| *seq);
    delete(tables, &deleted)?;
    tables.kinds.remove_unused(tables.connection)?;
    let rows = tasks.iter().filter_map(|(_, task)| task.row.as_ref().map(|(seq, row)| (*seq, &**row)));
    let rows: Vec<NumberedRow<'_>> = rows.collect();
    {
        let mut times = times.lock();
        for (seq, row) in rows.iter().filter(|(_, row)| matches!(row.origin, Origin::New(_))) {
            times.add(*seq, row.status.submitted_at);
        }
    }
    let inserted = insert(tables, &rows)?;
    meta.tasks = meta.tasks + inserted - deleted.len() as u64;
    update(tables, &rows)?;
    store_bodies(tables.connection, &rows)
}

fn delete(tables: &Tables<'_>, deleted: &[&(u64, StoredRow)]) -> rusqlite::Result<()> {
    for table in ["tasks", "payloads", "results", "outputs"] {
        let has_rows = format!("SELECT EXISTS (SELECT 1 FROM {table})");
        if !tables.connection.prepare_cached(&has_rows)?.query_row([], |row| row.get::<_, bool>(0))? {
            continue;
        }
        let mut statement = tables.connection.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?1"))?;
        for (seq, _) in deleted {
            statement.execute([seq.cast_signed()])?;
        }
    }
    let mut label =
        tables.connection.prepare_cached("DELETE FROM labels WHERE key = ?1 AND value = ?2 AND seq = ?3")?;
    let mut state =
        tables.connection.prepare_cached("DELETE FROM task_states WHERE kind = ?1 AND state = ?2 AND seq = ?3")?;
    for (seq, stored) in deleted {
        for (key, value) in &stored.options.labels {
            label.execute(params![key, value, seq.cast_signed()])?;
        }
        let kind = tables.kinds.get(&stored.options);
        state.execute(params![kind, stored.state as u8, seq.cast_signed()])?;
    }
    Ok(())
}

/// Inserts the new rows, in their order, and returns their number.
fn insert(tables: &mut Tables<'_>, rows: &[NumberedRow<'_>]) -> rusqlite::Result<u64> {
    let connection = tables.connection;
    let mut task = connection.prepare_cached(
        "INSERT INTO tasks(seq, id, namespace, state, priority, pool, handler, batch, submitted_at, finished_at,
            spec_crc, status_crc, status, options, spec)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    let mut task_state = connection.prepare_cached("INSERT INTO task_states VALUES (?1, ?2, ?3)")?;
    let mut label = connection.prepare_cached("INSERT OR REPLACE INTO labels VALUES (?1, ?2, ?3)")?;
    let mut payload = connection.prepare_cached("INSERT INTO payloads VALUES (?1, ?2, ?3)")?;
    // Many tasks share their options.
    let mut shared: HashMap<*const TaskOptions, (Vec<u8>, i64)> = HashMap::new();
    let mut inserted = 0;
    for (seq, pending) in rows {
        let Origin::New(spec) = &pending.origin else { continue };
        let (options, at, key) = (&spec.options, pending.status.submitted_at.0, seq.cast_signed());
        let (bytes, kind) = match shared.entry(Arc::as_ptr(options)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert((options_bytes(options), tables.kinds.get_or_insert(connection, options)?))
            }
        };
        let row = SpecRow::new(*seq, spec, at, bytes);
        let (status, status_crc) = status_row(*seq, &pending.status);
        task.execute(params![
            key,
            row.id,
            options.namespace.as_str(),
            pending.status.state as u8,
            options.priority as u8,
            options.pool.as_str(),
            options.handler.as_str(),
            options.batch.as_ref().map(BatchId::as_str),
            at.cast_signed(),
            pending.status.finished_at.map(|at| at.0.cast_signed()),
            row.crc,
            status_crc,
            status,
            &bytes[..],
            row.spec,
        ])?;
        task_state.execute(params![*kind, pending.status.state as u8, key])?;
        for (name, value) in &options.labels {
            label.execute(params![name, value, key])?;
        }
        if let Some((body, crc)) = &row.payload {
            payload.execute(params![key, crc, &body[..]])?;
        }
        inserted += 1;
    }
    Ok(inserted)
}

fn update(tables: &mut Tables<'_>, rows: &[NumberedRow<'_>]) -> rusqlite::Result<()> {
    let mut task = tables
        .connection
        .prepare_cached("UPDATE tasks SET state = ?2, finished_at = ?3, status = ?4, status_crc = ?5 WHERE seq = ?1")?;
    let mut task_state = tables
        .connection
        .prepare_cached("UPDATE task_states SET state = ?4 WHERE kind = ?1 AND state = ?2 AND seq = ?3")?;
    for (seq, row) in rows {
        let Origin::Stored(stored) = &row.origin else { continue };
        let (key, state) = (seq.cast_signed(), row.status.state);
        let (status, crc) = status_row(*seq, &row.status);
        let finished_at = row.status.finished_at.map(|at| at.0.cast_signed());
        task.execute(params![key, state as u8, finished_at, status, crc])?;
        if state != stored.state {
            let kind = tables.kinds.get(&stored.options);
            task_state.execute(params![kind, stored.state as u8, key, state as u8])?;
        }
        if let Some(updated) = &row.updated {
            updated.write(tables.connection, tables.kinds, *seq, &row.status, &stored.options)?;
        }
    }
    Ok(())
}

/// Stores large results, and outputs.
fn store_bodies(connection: &Connection, rows: &[NumberedRow<'_>]) -> rusqlite::Result<()> {
    let mut result = connection.prepare_cached("INSERT OR REPLACE INTO results VALUES (?1, ?2, ?3)")?;
    let mut output = connection.prepare_cached("INSERT OR REPLACE INTO outputs VALUES (?1, ?2, ?3, ?4)")?;
    for (seq, row) in rows {
        let key = seq.cast_signed();
        if let Some(payload) = row.status.result.as_ref().filter(|result| !is_inline(result)) {
            let body = result_bytes(payload);
            result.execute(params![key, body_checksum(*seq, &body), body])?;
        }
        for (attempt, written) in &row.outputs {
            let body = output_bytes(written);
            output.execute(params![key, attempt, body_checksum(output_key(*seq, *attempt), &body), body])?;
        }
    }
    Ok(())
}
