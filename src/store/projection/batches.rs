//! The table of batches: a row for each, from which a start recovers it.

use std::path::Path;

use hashbrown::HashMap;
use prost::Message;
use rusqlite::{Connection, Row, params};

use super::rows::{COLUMNS, RowReader, blob, number, text};
use super::sum::Sum;
use crate::model::batch::BatchKeyRef;
use crate::model::batch_state::{fold_batch, fold_task_into_batch};
use crate::model::{Batch, BatchEvent, BatchId, BatchKey, Namespace, Revision, TaskEvent};
use crate::store::error::StoreError;
use crate::store::record::{BatchRecord, Corruption, checksum};
use crate::store::sqlite::sqlite_error;

/// The columns that [`read`] reads.
const BATCH_COLUMNS: &str = "seq, namespace, id, crc, body";

/// The batches that the next transaction writes.
#[derive(Default)]
pub(super) struct PendingBatches(HashMap<BatchKey, PendingBatch>);

struct PendingBatch {
    /// Number of the row as last written.
    stored: Option<Revision>,
    batch: Option<Batch>,
}

impl PendingBatches {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn fold(&mut self, connection: &Connection, path: &Path, event: &BatchEvent) -> Result<(), StoreError> {
        let BatchKey { namespace, id } = &event.batch;
        fold_batch(&mut self.get(connection, path, &BatchKeyRef { namespace, id })?.batch, event);
        Ok(())
    }

    /// Folds an event of a task into the batch that it changes.
    pub(super) fn fold_task(
        &mut self,
        connection: &Connection,
        path: &Path,
        key: &BatchKeyRef<'_>,
        event: &TaskEvent,
    ) -> Result<(), StoreError> {
        fold_task_into_batch(&mut self.get(connection, path, key)?.batch, event);
        Ok(())
    }

    fn get(
        &mut self,
        connection: &Connection,
        path: &Path,
        key: &BatchKeyRef<'_>,
    ) -> Result<&mut PendingBatch, StoreError> {
        if !self.0.contains_key(key) {
            let batch = find(connection, path, key)?;
            let stored = batch.as_ref().map(|batch| batch.created);
            self.0.insert(key.to_key(), PendingBatch { stored, batch });
        }
        let found = self.0.get_mut(key);
        found.ok_or_else(|| StoreError::malformed(path, "a batch that was added is missing"))
    }

    /// Writes the rows.
    pub(super) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut delete = connection.prepare_cached("DELETE FROM batches WHERE seq = ?1")?;
        for PendingBatch { stored, batch } in self.0.values() {
            let kept = batch.as_ref().map(|batch| batch.created);
            if let Some(seq) = stored.filter(|seq| Some(*seq) != kept) {
                delete.execute([seq.0.cast_signed()])?;
            }
        }
        self.0.values().filter_map(|pending| pending.batch.as_ref()).try_for_each(|batch| insert(connection, batch))
    }
}

fn insert(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO batches VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let (BatchKey { namespace, id }, body) = (&batch.key, BatchRecord::from(batch).encode_to_vec());
    let (namespace, id) = (namespace.as_str(), id.as_str());
    let crc = row_checksum(batch.created.0, namespace, id, &body);
    statement.execute(params![batch.created.0.cast_signed(), namespace, id, crc, body]).map(|_| ())
}

fn row_checksum(seq: u64, namespace: &str, id: &str, body: &[u8]) -> u32 {
    // Names contain no NUL byte, so it separates them.
    checksum(&[&seq.to_le_bytes(), namespace.as_bytes(), b"\0", id.as_bytes(), b"\0", body])
}

/// A batch from [`BATCH_COLUMNS`].
fn read(row: &Row<'_>) -> Result<Batch, Corruption> {
    let seq = number(row, 0)?.unwrap_or_default().cast_unsigned();
    let (namespace, id, body) = (text(row, 1)?, text(row, 2)?, blob(row, 4)?);
    if number(row, 3)? != Some(row_checksum(seq, namespace, id, body).into()) {
        return Err(Corruption::new("checksum mismatch"));
    }
    let invalid = |error: crate::model::id::NameError| Corruption::new(error.to_string());
    let key =
        BatchKey { namespace: Namespace::parse(namespace).map_err(invalid)?, id: BatchId::parse(id).map_err(invalid)? };
    BatchRecord::decode(body)?.into_model(key, Revision(seq))
}

fn corrupt(path: &Path, row: &Row<'_>, corruption: Corruption) -> StoreError {
    let row = number(row, 0).ok().flatten().unwrap_or_default();
    StoreError::corrupt(path, format!("table batches, row {row}"), corruption)
}

fn find(connection: &Connection, path: &Path, key: &BatchKeyRef<'_>) -> Result<Option<Batch>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = format!("SELECT {BATCH_COLUMNS} FROM batches WHERE namespace = ?1 AND id = ?2");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query([key.namespace.as_str(), key.id.as_str()]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let batch = read(row).map_err(|corruption| corrupt(path, row, corruption))?;
    let is_it = batch.key.namespace == *key.namespace && batch.key.id == *key.id;
    let differs = || StoreError::corrupt(path, "the index of batches", "an entry does not match its row");
    if is_it { Ok(Some(batch)) } else { Err(differs()) }
}

/// Calls `visit` with every batch, in the order of creation. Verifies the rows and the index.
pub fn for_each_batch(connection: &Connection, path: &Path, mut visit: impl FnMut(Batch)) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let mut rows_sum = Sum::default();
    {
        let sql = format!("SELECT {BATCH_COLUMNS} FROM batches NOT INDEXED ORDER BY seq");
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let batch = read(row).map_err(|corruption| corrupt(path, row, corruption))?;
            let BatchKey { namespace, id } = &batch.key;
            rows_sum.add(batch.created.0, &[namespace.as_str().as_bytes(), id.as_str().as_bytes()]);
            visit(batch);
        }
    }
    let sql = "SELECT namespace, id, seq FROM batches INDEXED BY sqlite_autoindex_batches_1 ORDER BY namespace, id";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let (mut index_sum, mut previous) = (Sum::default(), None);
    while let Some(row) = rows.next().map_err(failed)? {
        let entry: (String, String) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        let seq: i64 = row.get(2).map_err(failed)?;
        index_sum.add(seq.cast_unsigned(), &[entry.0.as_bytes(), entry.1.as_bytes()]);
        if previous.as_ref() >= Some(&entry) {
            return Err(StoreError::corrupt(path, "the index of batches", "entries are out of order"));
        }
        previous = Some(entry);
    }
    if index_sum == rows_sum {
        return Ok(());
    }
    Err(StoreError::corrupt(path, "the index of batches", "entries do not match the rows"))
}

/// The tasks of each batch, to compare with the rows.
#[derive(Default)]
pub(super) struct PresentTasks(HashMap<BatchKey, u64>);

impl PresentTasks {
    pub(super) fn add(&mut self, key: &BatchKeyRef<'_>) {
        match self.0.get_mut(key) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(key.to_key(), 1)),
        }
    }

    /// Verifies that every batch has as many tasks as its row says, and that no row is missing.
    pub(super) fn verify(&self, connection: &Connection, path: &Path) -> Result<(), StoreError> {
        let (mut found, mut wrong) = (0, None);
        for_each_batch(connection, path, |batch| {
            let tasks = self.0.get(&batch.key).copied().unwrap_or_default();
            found += usize::from(tasks > 0);
            if tasks != batch.present {
                wrong = Some(format!("batch {} has {tasks} tasks instead of {}", batch.key, batch.present));
            }
        })?;
        let missing = || (found < self.0.len()).then(|| format!("{} rows are missing", self.0.len() - found));
        match wrong.or_else(missing) {
            Some(detail) => Err(StoreError::corrupt(path, "table batches", detail)),
            None => Ok(()),
        }
    }
}

/// Makes the batches of the tasks of a version that had no such table.
pub(super) fn take_over(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = format!("SELECT {COLUMNS} FROM tasks t WHERE t.batch IS NOT NULL ORDER BY t.seq");
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let (mut reader, mut batches) = (RowReader::new(path), HashMap::<BatchKey, Option<Batch>>::new());
    while let Some(row) = rows.next().map_err(failed)? {
        let (_, task) = reader.task(row)?;
        let (options, status) = (&task.spec.options, &task.status);
        let Some(id) = &options.batch else { continue };
        let key = BatchKey { namespace: options.namespace.clone(), id: id.clone() };
        Batch::take_over(batches.entry(key).or_default(), options, status);
    }
    let written = batches.into_values().flatten().try_for_each(|batch| insert(connection, &batch));
    written.map_err(|error| sqlite_error("write to", path, &error))
}
