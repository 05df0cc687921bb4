//! The table of kinds: a number for each combination of namespace, pool, handler and priority. The table `task_states`
//! finds the tasks of a kind and a state; numbers keep its entries at about 12 bytes.

use std::path::Path;

use hashbrown::{HashMap, HashSet};
use rusqlite::{Connection, Row, params};

use crate::model::{HandlerName, Namespace, PoolName, Priority, TaskFilter, TaskOptions};
use crate::store::error::StoreError;
use crate::store::record::Corruption;
use crate::store::sqlite::sqlite_error;

const SELECT: &str = "SELECT id, namespace, pool, handler, priority FROM kinds";
/// Number of kinds below which unused ones are kept.
const KEPT: usize = if cfg!(test) { 4 } else { 64 };

#[derive(PartialEq, Eq, Hash)]
struct Kind {
    namespace: Namespace,
    pool: PoolName,
    handler: HandlerName,
    priority: Priority,
}

impl From<&TaskOptions> for Kind {
    fn from(options: &TaskOptions) -> Self {
        Self {
            namespace: options.namespace.clone(),
            pool: options.pool.clone(),
            handler: options.handler.clone(),
            priority: options.priority,
        }
    }
}

/// The content of the table.
pub(super) struct Kinds {
    numbers: HashMap<Kind, i64>,
    last: i64,
    /// Unused kinds are removed when there are more kinds than this.
    allowed: usize,
}

impl Kinds {
    pub(super) fn load(connection: &Connection, path: &Path) -> Result<Self, StoreError> {
        let failed = |error| sqlite_error("read", path, &error);
        let corrupt = |detail: String| StoreError::corrupt(path, "table kinds", detail);
        let mut statement = connection.prepare_cached(SELECT).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut numbers = HashMap::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let id = row.get::<_, i64>(0).map_err(failed)?;
            let kind = kind(row).map_err(|corruption| corrupt(format!("row {id}: {corruption}")))?;
            if numbers.insert(kind, id).is_some() {
                return Err(corrupt(format!("row {id} repeats another")));
            }
        }
        let last = numbers.values().copied().max().unwrap_or_default();
        Ok(Self { allowed: allowed(numbers.len()), numbers, last })
    }

    pub(super) fn get(&self, options: &TaskOptions) -> Option<i64> {
        self.numbers.get(&Kind::from(options)).copied()
    }

    /// The number of the kind, which is added to the table if it is new.
    pub(super) fn get_or_insert(&mut self, connection: &Connection, options: &TaskOptions) -> rusqlite::Result<i64> {
        if let Some(id) = self.get(options) {
            return Ok(id);
        }
        let id = self.last + 1;
        connection.prepare_cached("INSERT INTO kinds VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            id,
            options.namespace.as_str(),
            options.pool.as_str(),
            options.handler.as_str(),
            options.priority as u8,
        ])?;
        self.last = id;
        self.numbers.insert(Kind::from(options), id);
        Ok(id)
    }

    /// Removes the kinds without tasks, once there are twice as many kinds as after the last time.
    pub(super) fn remove_unused(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.numbers.len() <= self.allowed {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "DELETE FROM kinds WHERE NOT EXISTS (SELECT 1 FROM task_states s WHERE s.kind = kinds.id) RETURNING id",
        )?;
        let removed = statement.query_map([], |row| row.get(0))?.collect::<Result<HashSet<i64>, _>>()?;
        self.numbers.retain(|_, id| !removed.contains(id));
        self.allowed = allowed(self.numbers.len());
        Ok(())
    }
}

fn allowed(used: usize) -> usize {
    (2 * used).max(KEPT)
}

fn kind(row: &Row<'_>) -> Result<Kind, Corruption> {
    let text = |at| row.get_ref(at).ok().and_then(|text| text.as_str().ok()).unwrap_or_default();
    let number = row.get::<_, u8>(4).ok().map(usize::from);
    let invalid = |name: &str| Corruption::new(format!("invalid {name}"));
    Ok(Kind {
        namespace: Namespace::parse(text(1)).map_err(|_| invalid("namespace"))?,
        pool: PoolName::parse(text(2)).map_err(|_| invalid("pool"))?,
        handler: HandlerName::parse(text(3)).map_err(|_| invalid("handler"))?,
        priority: number.and_then(Priority::from_index).ok_or_else(|| invalid("priority"))?,
    })
}

/// The kinds of the tasks that a filter can match.
pub(super) fn matching(connection: &Connection, filter: &TaskFilter) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let mut rows = statement.query([])?;
    let mut matching = Vec::new();
    while let Some(row) = rows.next()? {
        let text = |at| row.get_ref(at).and_then(|text| Ok(text.as_str()?));
        let (namespace, pool, handler, priority) = (text(1)?, text(2)?, text(3)?, row.get::<_, u8>(4)?);
        if (filter.namespaces.is_empty() || filter.namespaces.iter().any(|name| name.as_str() == namespace))
            && filter.pool.as_ref().is_none_or(|name| name.as_str() == pool)
            && filter.handler.as_ref().is_none_or(|name| name.as_str() == handler)
            && (filter.priorities.is_empty() || filter.priorities.iter().any(|wanted| *wanted as u8 == priority))
        {
            matching.push(row.get(0)?);
        }
    }
    Ok(matching)
}
