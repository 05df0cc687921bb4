//! Changed settings of pools in journals of format 2, where they were rows of a table and not events.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row};

use super::rows;
use crate::model::{Clock, Event, PoolChange, PoolEvent, PoolName, PoolSettings, Revision, SystemClock};
use crate::store::error::StoreError;
use crate::store::record::checksum;
use crate::store::sqlite::sqlite_error;
use crate::store::traits::Commit;

/// Appends the rows as events after the revision `end`, drops the table, and returns the new end. Does nothing if
/// there is no table.
pub(super) fn convert(connection: &mut Connection, path: &Path, end: u64) -> Result<u64, StoreError> {
    let failed = |error| sqlite_error("convert", path, &error);
    let pools = load(connection, path)?;
    let at = SystemClock.now();
    let event = |(revision, (pool, change))| Event::Pool(PoolEvent { revision: Revision(revision), at, pool, change });
    let commit = Commit::new((end + 1..).zip(pools).map(event).collect(), true);
    let transaction = connection.transaction().map_err(failed)?;
    if !commit.events.is_empty() {
        rows::insert(&transaction, &commit, &mut Vec::new()).map_err(failed)?;
    }
    transaction.execute_batch("DROP TABLE IF EXISTS pools").map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(end + commit.events.len() as u64)
}

/// The rows of the table; none if there is no table.
pub fn load(connection: &Connection, path: &Path) -> Result<Vec<(PoolName, PoolChange)>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'pools'";
    if connection.query_row(exists, [], |_| Ok(())).optional().map_err(failed)?.is_none() {
        return Ok(Vec::new());
    }
    let sql = "SELECT name, configured_size, configured_queue_limit, configured_paused, size, queue_limit, paused,
        checksum FROM pools ORDER BY name";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut pools = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let location = || format!("table pools, row {}", pools.len() + 1);
        let pool = parse(row).ok_or_else(|| StoreError::corrupt(path, location(), "checksum mismatch"))?;
        pools.push(pool);
    }
    Ok(pools)
}

/// Returns `None` unless the row matches its checksum.
fn parse(row: &Row<'_>) -> Option<(PoolName, PoolChange)> {
    let number = |index| row.get::<_, i64>(index).ok().map(i64::cast_unsigned);
    let settings = |at| {
        let paused = match number(at + 2)? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let (size, queue_limit) = (number(at)?.try_into().ok()?, number(at + 1)?.try_into().ok()?);
        Some(PoolSettings { size, queue_limit, paused })
    };
    let name = PoolName::parse(&row.get::<_, String>(0).ok()?).ok()?;
    let (configured, set) = (settings(1)?, settings(4)?);
    let written = number(7)? == u64::from(row_checksum(&name, configured, set));
    written.then_some((name, PoolChange::Updated { configured, set }))
}

fn row_checksum(name: &PoolName, configured: PoolSettings, set: PoolSettings) -> u32 {
    let numbers = [numbers(configured), numbers(set)].concat();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    checksum(&[name.as_str().as_bytes(), b"\0", &bytes])
}

fn numbers(settings: PoolSettings) -> [u64; 3] {
    [settings.size as u64, settings.queue_limit as u64, settings.paused.into()]
}
