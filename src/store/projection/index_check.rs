//! Compares the projection's indexes with its rows.
//!
//! SQLite notices a corrupt page only when its structure breaks. A changed key in an index would silently make a task
//! impossible to find. At the start every index is therefore read in order, and its entries are compared with the
//! entries that the rows require: by their number and by the sum of their checksums.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::batches::PresentTasks;
use super::kinds::Kinds;
use super::rows::has_separate_result;
use super::sum::Sum;
use crate::model::Task;
use crate::model::batch::BatchKeyRef;
use crate::store::error::StoreError;
use crate::store::sqlite::sqlite_error;

/// Each index with the query that reads it in order.
const INDEXES: [(&str, &str); 4] = [
    ("ids", "SELECT id, seq FROM tasks INDEXED BY sqlite_autoindex_tasks_1 ORDER BY id, seq"),
    ("labels", "SELECT key, value, seq FROM labels ORDER BY key, value, seq"),
    ("batches", "SELECT batch, seq FROM tasks INDEXED BY tasks_batch WHERE batch IS NOT NULL ORDER BY batch, seq"),
    ("states", "SELECT kind, state, seq FROM task_states ORDER BY kind, state, seq"),
];

/// The entries that the indexes must contain.
pub struct ExpectedEntries {
    sums: [Sum; INDEXES.len()],
    results: Sum,
    /// `None` for a file of a version without an index of states.
    kinds: Option<Kinds>,
    /// `None` for a file of a version without a table of batches.
    batches: Option<PresentTasks>,
}

impl ExpectedEntries {
    pub(super) fn new(connection: &Connection, path: &Path) -> Result<Self, StoreError> {
        let failed = |error| sqlite_error("read", path, &error);
        let has_table = |name: &str| {
            let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)";
            connection.query_row(sql, [name], |row| row.get::<_, bool>(0)).map_err(failed)
        };
        let kinds = has_table("task_states")?.then(|| Kinds::load(connection, path)).transpose()?;
        let batches = has_table("batches")?.then(PresentTasks::default);
        Ok(Self { sums: Default::default(), results: Sum::default(), kinds, batches })
    }

    /// Adds the entries of a task; `id` is the text of its column.
    pub(super) fn add(&mut self, seq: u64, id: &str, task: &Task) {
        let [ids, labels, batches, states] = &mut self.sums;
        ids.add(seq, &[id.as_bytes()]);
        for (key, value) in &task.spec.options.labels {
            labels.add(seq, &[key.as_bytes(), value.as_bytes()]);
        }
        if let Some(batch) = &task.spec.options.batch {
            batches.add(seq, &[batch.as_str().as_bytes()]);
            if let Some(present) = &mut self.batches {
                present.add(&BatchKeyRef { namespace: &task.spec.options.namespace, id: batch });
            }
        }
        if has_separate_result(&task.status) {
            self.results.add(seq, &[]);
        }
        if let Some(kinds) = &self.kinds {
            // No entry has the number 0.
            let kind = kinds.get(&task.spec.options).unwrap_or_default();
            states.add(seq, &[&kind.to_be_bytes(), &i64::from(task.status.state as u8).to_be_bytes()]);
        }
    }

    /// The rows in the table of results.
    pub(super) fn results(&self) -> Sum {
        self.results
    }

    /// Compares every index, and the table of batches, with the expected entries.
    pub(super) fn verify(&self, connection: &Connection, path: &Path) -> Result<(), StoreError> {
        let indexes = if self.kinds.is_some() { &INDEXES[..] } else { &INDEXES[..INDEXES.len() - 1] };
        for ((name, sql), expected) in indexes.iter().zip(self.sums) {
            let failed = |error| sqlite_error("read", path, &error);
            let corrupt = |detail: &str| StoreError::corrupt(path, format!("the index of {name}"), detail);
            let mut statement = connection.prepare(sql).map_err(failed)?;
            let columns = statement.column_count();
            let mut rows = statement.query([]).map_err(failed)?;
            let mut found = Sum::default();
            let (mut previous, mut current) = (Vec::new(), Vec::new());
            while let Some(row) = rows.next().map_err(failed)? {
                current.clear();
                let seq = add_entry(row, columns, &mut found, &mut current);
                let seq = seq.ok_or_else(|| corrupt("an entry has an unexpected type"))?;
                current.extend(seq.to_be_bytes());
                if current <= previous && found.entries > 1 {
                    return Err(corrupt("entries are out of order"));
                }
                std::mem::swap(&mut previous, &mut current);
            }
            if found != expected {
                return Err(corrupt("entries do not match the rows"));
            }
        }
        self.batches.as_ref().map_or(Ok(()), |present| present.verify(connection, path))
    }
}

/// Adds one entry to `sum`, and its key to `order`. Returns its row, or `None` when a column has an unexpected type.
fn add_entry(row: &Row<'_>, columns: usize, sum: &mut Sum, order: &mut Vec<u8>) -> Option<u64> {
    let ValueRef::Integer(seq) = row.get_ref(columns - 1).ok()? else { return None };
    let seq = seq.cast_unsigned();
    let mut first = [0; 8];
    let first = key_bytes(row, 0, &mut first, order)?;
    if columns == 3 {
        let mut second = [0; 8];
        let second = key_bytes(row, 1, &mut second, order)?;
        sum.add(seq, &[first, second]);
    } else {
        sum.add(seq, &[first]);
    }
    Some(seq)
}

/// The bytes of a column that is a text or a number of at least 0, which are also added to `order`.
fn key_bytes<'a>(row: &'a Row<'_>, at: usize, number: &'a mut [u8; 8], order: &mut Vec<u8>) -> Option<&'a [u8]> {
    match row.get_ref(at).ok()? {
        ValueRef::Text(text) => {
            order.extend(text);
            // The end of a text sorts before every character.
            order.push(0);
            Some(text)
        }
        ValueRef::Integer(integer) => {
            *number = integer.to_be_bytes();
            order.extend(&*number);
            Some(number)
        }
        _ => None,
    }
}
