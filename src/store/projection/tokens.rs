//! The table of token buckets of limits, with a row for each that is not full or was not for the last hour.

use std::path::Path;

use hashbrown::HashMap;
use rusqlite::{Connection, Row, params};

use super::rows::{number, text};
use crate::model::{LimitId, LimitName, Namespace, TaskChange, TaskEvent, Timestamp};
use crate::store::error::StoreError;
use crate::store::record::{Corruption, checksum};
use crate::store::sqlite::sqlite_error;

/// Rows are kept this long after their bucket is full, so that a start with a clock that was set back decides as before.
const KEPT_NANOS: u64 = 3_600 * 1_000_000_000;

/// What the next transaction writes.
#[derive(Default)]
pub(super) struct PendingTokens {
    full_at: HashMap<LimitId, u64>,
    /// Time of the last start.
    now: Timestamp,
}

impl PendingTokens {
    pub(super) fn len(&self) -> usize {
        self.full_at.len()
    }

    pub(super) fn fold(&mut self, event: &TaskEvent) {
        let TaskChange::Started { charges, .. } = &event.change else { return };
        for charge in charges {
            if let Some(limit) = event.options.limits.get(usize::from(charge.limit)) {
                self.full_at.insert(limit.id(&event.options.namespace).to_id(), charge.full_at);
                self.now = self.now.max(event.at);
            }
        }
    }

    /// Writes the rows, and deletes those of buckets that have been full for long.
    pub(super) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.full_at.is_empty() {
            return Ok(());
        }
        let mut insert =
            connection.prepare_cached("INSERT OR REPLACE INTO limit_tokens VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (id, full_at) in &self.full_at {
            let [namespace, name, key] = parts(id);
            let crc = row_checksum([namespace, name, key], *full_at);
            insert.execute(params![namespace, name, key, full_at.cast_signed(), crc])?;
        }
        let long_ago = self.now.0.saturating_mul(1_000).saturating_sub(KEPT_NANOS).cast_signed();
        connection.prepare_cached("DELETE FROM limit_tokens WHERE full_at <= ?1")?.execute([long_ago]).map(|_| ())
    }
}

/// Empty if there is none.
fn parts(id: &LimitId) -> [&str; 3] {
    let id = id.by_ref();
    [id.namespace.map_or("", Namespace::as_str), id.name.map_or("", LimitName::as_str), id.key]
}

fn row_checksum(parts: [&str; 3], full_at: u64) -> u32 {
    // Names contain no NUL byte, so it separates them.
    let [namespace, name, key] = parts.map(str::as_bytes);
    checksum(&[namespace, b"\0", name, b"\0", key, b"\0", &full_at.to_le_bytes()])
}

/// Calls `visit` with each limit and the time at which its bucket is full, in nanoseconds.
pub fn for_each_bucket(
    connection: &Connection,
    path: &Path,
    mut visit: impl FnMut(LimitId, u64),
) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let mut statement = connection
        .prepare("SELECT namespace, name, key, full_at, crc FROM limit_tokens NOT INDEXED")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let (id, full_at) =
            read(row).map_err(|corruption| StoreError::corrupt(path, "table limit_tokens", corruption))?;
        visit(id, full_at);
    }
    Ok(())
}

fn read(row: &Row<'_>) -> Result<(LimitId, u64), Corruption> {
    let (namespace, name, key) = (text(row, 0)?, text(row, 1)?, text(row, 2)?);
    let full_at = number(row, 3)?.unwrap_or_default().cast_unsigned();
    if number(row, 4)? != Some(row_checksum([namespace, name, key], full_at).into()) {
        return Err(Corruption::new("checksum mismatch"));
    }
    let invalid = |error: crate::model::id::NameError| Corruption::new(error.to_string());
    let namespace = (!namespace.is_empty()).then(|| Namespace::parse(namespace).map_err(invalid)).transpose()?;
    let name = (!name.is_empty()).then(|| LimitName::parse(name).map_err(invalid)).transpose()?;
    Ok((LimitId::new(namespace, name, key.into()), full_at))
}

/// Reads all rows.
pub fn verify_buckets(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    for_each_bucket(connection, path, |_, _| ())
}
