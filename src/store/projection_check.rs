//! Whether the projection's indexes say the same as its rows.
//!
//! SQLite notices a damaged page only when its structure breaks; a changed key would make a task
//! unfindable without a word. So every index is walked in order at the start, and what it holds is
//! compared with what the rows should have put there: by count and by a sum of checksums.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::StoreError;
use super::projection_rows::corrupt;
use super::record::{checksum, damage};
use super::sqlite::fault;
use crate::model::{Task, TaskState};

/// The indexes: name for people, and the walk through it.
const WALKS: [(&str, &str); 4] = [
    ("ids", "SELECT id, seq FROM tasks INDEXED BY sqlite_autoindex_tasks_1 ORDER BY id, seq"),
    ("labels", "SELECT key, value, seq FROM labels ORDER BY key, value, seq"),
    ("batches", "SELECT batch, seq FROM tasks INDEXED BY tasks_batch WHERE batch IS NOT NULL ORDER BY batch, seq"),
    ("states", "SELECT state, seq FROM tasks INDEXED BY tasks_seldom WHERE state IN (3, 5, 6) ORDER BY state, seq"),
];

/// What the indexes should hold.
#[derive(Default)]
pub(super) struct Expected {
    sums: [Sum; WALKS.len()],
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Sum {
    entries: u64,
    checksums: u64,
}

impl Sum {
    fn add(&mut self, seq: u64, texts: &[&[u8]]) {
        let key = seq.to_le_bytes();
        let crc = match texts {
            [one] => checksum(&[&key, one]),
            [one, two] => checksum(&[&key, one, b"\0", two]),
            _ => checksum(&[&key]),
        };
        self.entries += 1;
        self.checksums = self.checksums.wrapping_add(crc.into());
    }
}

impl Expected {
    /// Counts a task in; `id` is the text of its column.
    pub(super) fn add(&mut self, seq: u64, id: &str, task: &Task) {
        let [ids, labels, batches, states] = &mut self.sums;
        ids.add(seq, &[id.as_bytes()]);
        for (key, value) in &task.spec.options.labels {
            labels.add(seq, &[key.as_bytes(), value.as_bytes()]);
        }
        if let Some(batch) = &task.spec.options.batch {
            batches.add(seq, &[batch.as_str().as_bytes()]);
        }
        let state = task.status.state;
        if matches!(state, TaskState::Running | TaskState::Failed | TaskState::Cancelled) {
            states.add(seq, &[&i64::from(state as u8).to_le_bytes()]);
        }
    }

    /// Walks the indexes.
    pub(super) fn verify(&self, connection: &Connection, path: &Path) -> Result<(), StoreError> {
        for ((name, sql), expected) in WALKS.iter().zip(self.sums) {
            let fault = |error| fault("read", path, &error);
            let broken = |text: &str| corrupt(path, "tasks", "any", &damage(format!("the index of {name} {text}")));
            let mut statement = connection.prepare(sql).map_err(fault)?;
            let columns = statement.column_count();
            let mut rows = statement.query([]).map_err(fault)?;
            let mut found = Sum::default();
            let mut last = Vec::new();
            let mut present = Vec::new();
            while let Some(row) = rows.next().map_err(fault)? {
                present.clear();
                let seq = entry(row, columns, &mut found, &mut present);
                let seq = seq.ok_or_else(|| broken("has a value of another type"))?;
                present.extend(seq.to_be_bytes());
                if present <= last && found.entries > 1 {
                    return Err(broken("is not in order"));
                }
                std::mem::swap(&mut last, &mut present);
            }
            if found != expected {
                return Err(broken("does not lead to the rows that are there"));
            }
        }
        Ok(())
    }
}

/// Adds one entry to the sum, and its texts to `order`; answers with its row.
fn entry(row: &Row<'_>, columns: usize, sum: &mut Sum, order: &mut Vec<u8>) -> Option<u64> {
    let ValueRef::Integer(seq) = row.get_ref(columns - 1).ok()? else { return None };
    let seq = seq.cast_unsigned();
    let number;
    let first: &[u8] = match row.get_ref(0).ok()? {
        ValueRef::Text(text) => text,
        ValueRef::Integer(state) => {
            number = state.to_le_bytes();
            &number
        }
        _ => return None,
    };
    order.extend(first);
    // Sorts before every character, as the end of a text does.
    order.push(0);
    if columns == 3 {
        let ValueRef::Text(second) = row.get_ref(1).ok()? else { return None };
        order.extend(second);
        order.push(0);
        sum.add(seq, &[first, second]);
    } else {
        sum.add(seq, &[first]);
    }
    Some(seq)
}
