//! Pools that were changed while the server ran, as the journal's file keeps them.

use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::StoreError;
use super::record::checksum;
use super::sqlite::fault;
use crate::model::{PoolName, PoolSpec};

/// The table; it joined the journal's file with its second version.
pub(super) const TABLE: &str = "CREATE TABLE pools(
        name TEXT PRIMARY KEY,
        configured_size INTEGER NOT NULL,
        configured_queue_limit INTEGER NOT NULL,
        configured_paused INTEGER NOT NULL,
        size INTEGER NOT NULL,
        queue_limit INTEGER NOT NULL,
        paused INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    );";

/// What can be changed of a pool while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBounds {
    /// Workers.
    pub size: usize,
    /// Tasks that may wait in it.
    pub queue_limit: usize,
    /// Starts nothing while true.
    pub paused: bool,
}

impl PoolBounds {
    /// Those of a pool.
    pub fn of(spec: &PoolSpec) -> Self {
        Self { size: spec.size, queue_limit: spec.queue_limit, paused: spec.paused }
    }

    fn numbers(self) -> [u64; 3] {
        [self.size as u64, self.queue_limit as u64, self.paused.into()]
    }

    fn from_numbers([size, queue_limit, paused]: [u64; 3]) -> Option<Self> {
        let paused = match paused {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { size: size.try_into().ok()?, queue_limit: queue_limit.try_into().ok()?, paused })
    }
}

/// A pool that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPool {
    /// Which.
    pub name: PoolName,
    /// What the configuration said then.
    pub configured: PoolBounds,
    /// What it was changed to.
    pub set: PoolBounds,
}

impl KeptPool {
    /// Changes a configured pool as it was changed before the restart. A setting that the configuration has
    /// changed since is the configuration's again; says which those are.
    pub fn apply(&self, spec: &mut PoolSpec) -> Vec<&'static str> {
        let mut overruled = Vec::new();
        let (configured, then, set) = (PoolBounds::of(spec), self.configured, self.set);
        let mut choose = |name, unchanged: bool, changed: bool| {
            if !unchanged && changed {
                overruled.push(name);
            }
            unchanged
        };
        if choose("size", configured.size == then.size, set.size != configured.size) {
            spec.size = set.size;
        }
        if choose("queue_limit", configured.queue_limit == then.queue_limit, set.queue_limit != configured.queue_limit)
        {
            spec.queue_limit = set.queue_limit;
        }
        if choose("paused", configured.paused == then.paused, set.paused != configured.paused) {
            spec.paused = set.paused;
        }
        overruled
    }

    fn checksum(&self) -> u32 {
        let numbers = [self.configured.numbers(), self.set.numbers()].concat();
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        checksum(&[self.name.as_str().as_bytes(), b"\0", &bytes])
    }

    /// Writes it in place of what was kept of the pool before.
    pub(super) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        let numbers = [self.configured.numbers(), self.set.numbers()].concat();
        let [size, limit, paused, set_size, set_limit, set_paused] =
            [0, 1, 2, 3, 4, 5].map(|n| numbers[n].cast_signed());
        connection
            .prepare_cached("INSERT OR REPLACE INTO pools VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![self.name.as_str(), size, limit, paused, set_size, set_limit, set_paused, self.checksum()])
            .map(|_| ())
    }
}

/// All that were kept.
pub(super) fn load(connection: &Connection, path: &Path) -> Result<Vec<KeptPool>, StoreError> {
    let fault = |error| fault("read", path, &error);
    let sql = "SELECT name, configured_size, configured_queue_limit, configured_paused, size, queue_limit, paused,
        checksum FROM pools ORDER BY name";
    let mut statement = connection.prepare(sql).map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    let mut kept = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        kept.push(parse(row).ok_or_else(|| StoreError::Corrupt {
            path: path.to_owned(),
            place: format!("table pools, row {}", kept.len() + 1),
            detail: "it does not fit its checksum".to_owned(),
        })?);
    }
    Ok(kept)
}

fn parse(row: &Row<'_>) -> Option<KeptPool> {
    let number = |index| row.get::<_, i64>(index).ok().map(i64::cast_unsigned);
    let name = PoolName::parse(&row.get::<_, String>(0).ok()?).ok()?;
    let configured = PoolBounds::from_numbers([number(1)?, number(2)?, number(3)?])?;
    let set = PoolBounds::from_numbers([number(4)?, number(5)?, number(6)?])?;
    let kept = KeptPool { name, configured, set };
    (number(7)? == u64::from(kept.checksum())).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::super::conformance::sqlite;
    use super::*;

    fn spec(size: usize, queue_limit: usize, paused: bool) -> PoolSpec {
        let spec = PoolSpec::with_defaults(PoolName::parse("a").unwrap(), 1);
        PoolSpec { size, queue_limit, paused, ..spec }
    }

    fn kept() -> KeptPool {
        let name = PoolName::parse("a").unwrap();
        let configured = PoolBounds::of(&spec(4, 100, false));
        KeptPool { name, configured, set: PoolBounds { size: 7, queue_limit: 100, paused: true } }
    }

    #[test]
    fn what_was_changed_holds_until_the_configuration_changes() {
        let mut same = spec(4, 100, false);
        assert!(kept().apply(&mut same).is_empty());
        assert_eq!(same, spec(7, 100, true));
        let mut resized = spec(5, 200, false);
        assert_eq!(kept().apply(&mut resized), ["size", "queue_limit"]);
        assert_eq!(resized, spec(5, 200, true), "what the configuration has not touched stays changed");
        let mut followed = spec(7, 100, false);
        assert!(kept().apply(&mut followed).is_empty(), "the configuration says what was set");
        assert_eq!(followed, spec(7, 100, true));
    }

    #[test]
    fn it_is_there_after_a_restart_also_in_a_file_of_the_first_version_and_damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        drop(sqlite(directory.path()).unwrap());
        let file = directory.path().join("journal.db");
        let raw = || Connection::open(&file).unwrap();
        raw().execute_batch("DROP TABLE pools; PRAGMA user_version = 1").unwrap();
        let (store, recovery) = sqlite(directory.path()).unwrap();
        assert!(recovery.pools.is_empty());
        store.journal.keep_pool(&KeptPool { set: kept().configured, ..kept() }).unwrap();
        store.journal.keep_pool(&kept()).unwrap();
        drop(store);
        assert_eq!(sqlite(directory.path()).unwrap().1.pools, [kept()]);
        raw().execute_batch("UPDATE pools SET size = 8").unwrap();
        let error = sqlite(directory.path()).err().unwrap().to_string();
        assert!(error.contains("journal.db") && error.contains("table pools"), "{error}");
    }
}
