//! Tables with a row for each batch or schedule, from which a start recovers them.

use std::hash::Hash;
use std::path::Path;

use hashbrown::{Equivalent, HashMap};
use rusqlite::{Connection, Row, params};

use super::rows::{blob, number, text};
use super::sum::Sum;
use crate::model::{Namespace, Revision};
use crate::store::error::StoreError;
use crate::store::record::{Corruption, checksum};
use crate::store::sqlite::sqlite_error;

/// Entities that are kept in memory after a transaction. If there are more, all are forgotten.
const REMEMBERED_MAX: usize = if cfg!(test) { 8 } else { 32_768 };

/// The columns that [`read`] reads.
const COLUMNS: &str = "seq, namespace, id, crc, body";

/// What has a row in a table of its own.
pub(super) trait Entity: Sized {
    type Key: Eq + Hash;
    /// What an encoding can leave for later ones of the same entity.
    type Encoded: Default;

    /// Name of the table.
    const TABLE: &'static str;

    fn key(&self) -> &Self::Key;

    /// Number of the row.
    fn created(&self) -> Revision;

    fn namespace_and_id(key: &Self::Key) -> (&str, &str);

    fn encode(&self, earlier: &mut Self::Encoded) -> Vec<u8>;

    fn decode(namespace: Namespace, id: &str, created: Revision, body: &[u8]) -> Result<Self, Corruption>;
}

/// A key for look-ups.
pub(super) trait EntityKey<T: Entity>: Hash + Equivalent<T::Key> {
    fn to_key(&self) -> T::Key;
}

/// The entities that the next transaction writes, and recent ones, which are not read again.
pub(super) struct Entities<T: Entity> {
    /// Places in `rows`.
    by_key: HashMap<T::Key, usize>,
    rows: Vec<EntityRow<T>>,
    /// Places of those that the next transaction writes.
    changed: Vec<usize>,
}

struct EntityRow<T: Entity> {
    /// Number of the row as last written.
    stored: Option<Revision>,
    /// `None` if there is none, or not any more.
    entity: Option<T>,
    encoded: T::Encoded,
    is_changed: bool,
}

impl<T: Entity> Default for Entities<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), rows: Vec::new(), changed: Vec::new() }
    }
}

impl<T: Entity> Entities<T> {
    /// Number of rows that the next transaction writes.
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// The entity as it will be written; `None` if there is none.
    pub(super) fn get(
        &mut self,
        connection: &Connection,
        path: &Path,
        key: &impl EntityKey<T>,
    ) -> Result<&mut Option<T>, StoreError> {
        let place = if let Some(known) = self.by_key.get(key) {
            *known
        } else {
            let key = key.to_key();
            let entity = find::<T>(connection, path, &key)?;
            let stored = entity.as_ref().map(T::created);
            self.by_key.insert(key, self.rows.len());
            self.rows.push(EntityRow { stored, entity, encoded: T::Encoded::default(), is_changed: false });
            self.rows.len() - 1
        };
        let row = &mut self.rows[place];
        if !std::mem::replace(&mut row.is_changed, true) {
            self.changed.push(place);
        }
        Ok(&mut row.entity)
    }

    /// Writes the rows, in the order of the table.
    pub(super) fn store(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut delete = connection.prepare_cached(&format!("DELETE FROM {} WHERE seq = ?1", T::TABLE))?;
        let mut update =
            connection.prepare_cached(&format!("UPDATE {} SET crc = ?2, body = ?3 WHERE seq = ?1", T::TABLE))?;
        let Self { rows, changed, .. } = self;
        let created = |row: &EntityRow<T>| row.entity.as_ref().map(T::created);
        changed.sort_unstable_by_key(|place| created(&rows[*place]).or(rows[*place].stored));
        for row in changed.iter().map(|place| &rows[*place]).filter(|row| created(row) != row.stored) {
            if let Some(seq) = row.stored {
                delete.execute([seq.0.cast_signed()])?;
            }
        }
        for place in changed {
            let EntityRow { stored, entity: Some(entity), encoded, .. } = &mut rows[*place] else { continue };
            if *stored == Some(entity.created()) {
                let (crc, body) = row_of(entity, encoded);
                update.execute(params![entity.created().0.cast_signed(), crc, body])?;
            } else {
                insert(connection, entity)?;
            }
        }
        Ok(())
    }

    /// The transaction has succeeded.
    pub(super) fn remember(&mut self) {
        for place in self.changed.drain(..) {
            let row = &mut self.rows[place];
            row.is_changed = false;
            row.stored = row.entity.as_ref().map(T::created);
        }
        if self.rows.len() > REMEMBERED_MAX {
            self.forget_written();
        }
    }

    /// Forgets what only saves reading.
    pub(super) fn forget_written(&mut self) {
        if self.changed.is_empty() {
            *self = Self::default();
        }
    }
}

pub(super) fn insert<T: Entity>(connection: &Connection, entity: &T) -> rusqlite::Result<()> {
    let sql = format!("INSERT OR REPLACE INTO {} VALUES (?1, ?2, ?3, ?4, ?5)", T::TABLE);
    let (namespace, id) = T::namespace_and_id(entity.key());
    let (crc, body) = row_of(entity, &mut T::Encoded::default());
    let mut statement = connection.prepare_cached(&sql)?;
    statement.execute(params![entity.created().0.cast_signed(), namespace, id, crc, body]).map(|_| ())
}

/// The checksum of a row, and its body.
fn row_of<T: Entity>(entity: &T, encoded: &mut T::Encoded) -> (u32, Vec<u8>) {
    let body = entity.encode(encoded);
    let (namespace, id) = T::namespace_and_id(entity.key());
    (row_checksum(entity.created().0, namespace, id, &body), body)
}

fn row_checksum(seq: u64, namespace: &str, id: &str, body: &[u8]) -> u32 {
    // Names contain no NUL byte, so it separates them.
    checksum(&[&seq.to_le_bytes(), namespace.as_bytes(), b"\0", id.as_bytes(), b"\0", body])
}

/// An entity from [`COLUMNS`].
fn read<T: Entity>(row: &Row<'_>) -> Result<T, Corruption> {
    let seq = number(row, 0)?.unwrap_or_default().cast_unsigned();
    let (namespace, id, body) = (text(row, 1)?, text(row, 2)?, blob(row, 4)?);
    if number(row, 3)? != Some(row_checksum(seq, namespace, id, body).into()) {
        return Err(Corruption::new("checksum mismatch"));
    }
    let namespace = Namespace::parse(namespace).map_err(|error| Corruption::new(error.to_string()))?;
    T::decode(namespace, id, Revision(seq), body)
}

fn corrupt<T: Entity>(path: &Path, row: &Row<'_>, corruption: Corruption) -> StoreError {
    let row = number(row, 0).ok().flatten().unwrap_or_default();
    StoreError::corrupt(path, format!("table {}, row {row}", T::TABLE), corruption)
}

fn index_error<T: Entity>(path: &Path, detail: &str) -> StoreError {
    StoreError::corrupt(path, format!("the index of {}", T::TABLE), detail)
}

fn find<T: Entity>(connection: &Connection, path: &Path, key: &T::Key) -> Result<Option<T>, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let sql = format!("SELECT {COLUMNS} FROM {} WHERE namespace = ?1 AND id = ?2", T::TABLE);
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let (namespace, id) = T::namespace_and_id(key);
    let mut rows = statement.query([namespace, id]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let entity = read::<T>(row).map_err(|corruption| corrupt::<T>(path, row, corruption))?;
    let is_it = T::namespace_and_id(entity.key()) == (namespace, id);
    if is_it { Ok(Some(entity)) } else { Err(index_error::<T>(path, "an entry does not match its row")) }
}

/// Calls `visit` with every entity, in the order of creation. Verifies the rows and the index.
pub(super) fn for_each<T: Entity>(
    connection: &Connection,
    path: &Path,
    mut visit: impl FnMut(T),
) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let mut rows_sum = Sum::default();
    {
        let sql = format!("SELECT {COLUMNS} FROM {} NOT INDEXED ORDER BY seq", T::TABLE);
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let entity = read::<T>(row).map_err(|corruption| corrupt::<T>(path, row, corruption))?;
            let (namespace, id) = T::namespace_and_id(entity.key());
            rows_sum.add(entity.created().0, &[namespace.as_bytes(), id.as_bytes()]);
            visit(entity);
        }
    }
    let sql = format!(
        "SELECT namespace, id, seq FROM {table} INDEXED BY sqlite_autoindex_{table}_1 ORDER BY namespace, id",
        table = T::TABLE
    );
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let (mut index_sum, mut previous) = (Sum::default(), None);
    while let Some(row) = rows.next().map_err(failed)? {
        let entry: (String, String) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        let seq: i64 = row.get(2).map_err(failed)?;
        index_sum.add(seq.cast_unsigned(), &[entry.0.as_bytes(), entry.1.as_bytes()]);
        if previous.as_ref() >= Some(&entry) {
            return Err(index_error::<T>(path, "entries are out of order"));
        }
        previous = Some(entry);
    }
    if index_sum == rows_sum { Ok(()) } else { Err(index_error::<T>(path, "entries do not match the rows")) }
}
