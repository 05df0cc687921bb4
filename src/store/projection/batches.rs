//! The table of batches.

use std::path::Path;

use hashbrown::HashMap;
use prost::Message;
use rusqlite::Connection;

use super::entities::{Entity, EntityKey, for_each, insert};
use super::rows::{COLUMNS, RowReader};
use crate::model::batch::BatchKeyRef;
use crate::model::{Batch, BatchId, BatchKey, Namespace, Revision};
use crate::store::error::StoreError;
use crate::store::record::{BatchRecord, Corruption};
use crate::store::sqlite::sqlite_error;

impl Entity for Batch {
    type Key = BatchKey;
    type Encoded = ();

    const TABLE: &'static str = "batches";

    fn key(&self) -> &BatchKey {
        &self.key
    }

    fn created(&self) -> Revision {
        self.created
    }

    fn namespace_and_id(key: &BatchKey) -> (&str, &str) {
        (key.namespace.as_str(), key.id.as_str())
    }

    fn encode(&self, (): &mut ()) -> Vec<u8> {
        BatchRecord::from(self).encode_to_vec()
    }

    fn decode(namespace: Namespace, id: &str, created: Revision, body: &[u8]) -> Result<Self, Corruption> {
        let id = BatchId::parse(id).map_err(|error| Corruption::new(error.to_string()))?;
        BatchRecord::decode(body)?.into_model(BatchKey { namespace, id }, created)
    }
}

impl EntityKey<Batch> for BatchKeyRef<'_> {
    fn to_key(&self) -> BatchKey {
        BatchKeyRef::to_key(*self)
    }
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
        for_each(connection, path, |batch: Batch| {
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
