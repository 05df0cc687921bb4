//! The table of pool overrides.

use std::path::Path;

use rusqlite::{Connection, Row, params};

use crate::model::{PoolName, PoolSettings};
use crate::store::error::StoreError;
use crate::store::pool_override::PoolOverride;
use crate::store::record::checksum;
use crate::store::sqlite::sqlite_error;

/// Replaces the stored override of the pool.
pub(super) fn store(connection: &Connection, pool: &PoolOverride) -> rusqlite::Result<()> {
    let (configured, set) = (numbers(pool.configured).map(u64::cast_signed), numbers(pool.set).map(u64::cast_signed));
    let sql = "INSERT OR REPLACE INTO pools VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    connection
        .prepare_cached(sql)?
        .execute(params![
            pool.name.as_str(),
            configured[0],
            configured[1],
            configured[2],
            set[0],
            set[1],
            set[2],
            row_checksum(pool)
        ])
        .map(|_| ())
}

pub fn load(connection: &Connection, path: &Path) -> Result<Vec<PoolOverride>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
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
fn parse(row: &Row<'_>) -> Option<PoolOverride> {
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
    let pool = PoolOverride { name, configured: settings(1)?, set: settings(4)? };
    (number(7)? == u64::from(row_checksum(&pool))).then_some(pool)
}

fn row_checksum(pool: &PoolOverride) -> u32 {
    let numbers = [numbers(pool.configured), numbers(pool.set)].concat();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    checksum(&[pool.name.as_str().as_bytes(), b"\0", &bytes])
}

fn numbers(settings: PoolSettings) -> [u64; 3] {
    [settings.size as u64, settings.queue_limit as u64, settings.paused.into()]
}
