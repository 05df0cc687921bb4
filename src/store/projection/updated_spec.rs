//! The row of an updated task: its new spec, and the entries of the indexes that have changed with it.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::kinds::Kinds;
use super::rows::{SpecRow, options_bytes};
use crate::model::{TaskChange, TaskEvent, TaskId, TaskOptions, TaskStatus};
use crate::store::record::SpecRecord;

pub(super) struct UpdatedSpec {
    task: TaskId,
    record: SpecRecord,
    pub(super) options: Arc<TaskOptions>,
}

impl UpdatedSpec {
    /// `record`: what the row has.
    pub(super) fn new(event: &TaskEvent, record: SpecRecord) -> Self {
        Self { task: event.task.clone(), record, options: event.options.clone() }
    }

    pub(super) fn update(&mut self, event: &TaskEvent) {
        if let TaskChange::Updated { delay, expires_after, .. } = event.change {
            self.record.update(delay, expires_after);
            self.options = Arc::clone(&event.options);
        }
    }

    /// Writes it, when the status is written. `stored`: the options of the row until now.
    pub(super) fn write(
        &self,
        connection: &Connection,
        kinds: &mut Kinds,
        seq: u64,
        status: &TaskStatus,
        stored: &TaskOptions,
    ) -> rusqlite::Result<()> {
        let (options, key, bytes) = (&*self.options, seq.cast_signed(), options_bytes(&self.options));
        let record = (&self.task, self.record.clone());
        let row = SpecRow::of_record(seq, record, status.submitted_at.0, (options, &bytes));
        connection
            .prepare_cached("UPDATE tasks SET priority = ?2, options = ?3, spec = ?4, spec_crc = ?5 WHERE seq = ?1")?
            .execute(params![key, options.priority as u8, bytes, row.spec, row.crc])?;
        let (old_kind, kind) = (kinds.get(stored), kinds.get_or_insert(connection, options)?);
        connection
            .prepare_cached("UPDATE task_states SET kind = ?4 WHERE kind = ?1 AND state = ?2 AND seq = ?3")?
            .execute(params![old_kind, status.state as u8, key, kind])?;
        let mut remove = connection.prepare_cached("DELETE FROM labels WHERE key = ?1 AND value = ?2 AND seq = ?3")?;
        for (name, value) in &stored.labels {
            remove.execute(params![name, value, key])?;
        }
        let mut add = connection.prepare_cached("INSERT OR REPLACE INTO labels VALUES (?1, ?2, ?3)")?;
        for (name, value) in &options.labels {
            add.execute(params![name, value, key])?;
        }
        Ok(())
    }
}
