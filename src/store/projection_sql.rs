//! The projection's tables, and the transactions that write them.

use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::folding::{advance, output_of, submitted};
use super::projection_rows::{
    SpecRow, body_checksum, corrupt, is_inline, options_bytes, output_bytes, result_bytes, status_of, status_row,
};
use super::record::{checksum, damage};
use super::sqlite::{Schema, fault};
use super::{Commit, StoreError};
use crate::model::{Change, Event, Output, Revision, TaskId, TaskOptions, TaskSpec, TaskStatus};

pub(super) const SCHEMA: Schema = Schema {
    application_id: 0x4c53_5031,
    migrations: &["CREATE TABLE tasks(
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            namespace TEXT NOT NULL,
            state INTEGER NOT NULL,
            priority INTEGER NOT NULL,
            pool TEXT NOT NULL,
            handler TEXT NOT NULL,
            batch TEXT,
            submitted_at INTEGER NOT NULL,
            finished_at INTEGER,
            spec_crc INTEGER NOT NULL,
            status_crc INTEGER NOT NULL,
            status BLOB NOT NULL,
            options BLOB NOT NULL,
            spec BLOB NOT NULL
        );
        CREATE INDEX tasks_batch ON tasks(batch) WHERE batch IS NOT NULL;
        CREATE INDEX tasks_seldom ON tasks(state) WHERE state IN (3, 5, 6);
        CREATE TABLE labels(key TEXT, value TEXT, seq INTEGER, PRIMARY KEY (key, value, seq)) WITHOUT ROWID;
        CREATE TABLE payloads(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
        CREATE TABLE results(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
        CREATE TABLE outputs(seq INTEGER, attempt INTEGER, crc INTEGER NOT NULL, body BLOB NOT NULL,
            PRIMARY KEY (seq, attempt));
        CREATE TABLE meta(
            id INTEGER PRIMARY KEY,
            revision INTEGER NOT NULL,
            tasks INTEGER NOT NULL,
            checksum INTEGER NOT NULL
        );
        INSERT INTO meta VALUES (1, 0, 0, 0);"],
};
/// Tasks of which is kept what was last written, twice at most: once per generation.
const KNOWN_MAX: usize = 16_384;
/// Rows of one transaction, about: few enough that the pages fit into the cache and into the log.
const ROWS_MAX: usize = 32_768;

/// Where the projection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) revision: Revision,
    /// Rows of the table `tasks`, so that a lost one is noticed.
    pub(super) tasks: u64,
}

impl Meta {
    fn checksum(self) -> u32 {
        checksum(&[&self.revision.0.to_le_bytes(), &self.tasks.to_le_bytes()])
    }

    pub(super) fn load(connection: &Connection, path: &Path) -> Result<Self, StoreError> {
        let mut statement = connection
            .prepare_cached("SELECT revision, tasks, checksum FROM meta WHERE id = 1")
            .map_err(|error| fault("read", path, &error))?;
        let found = statement
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
            .optional()
            .map_err(|error| fault("read", path, &error))?;
        let broken = || corrupt(path, "meta", "none", &damage("the checksum does not fit"));
        let (revision, tasks, written) = found.ok_or_else(broken)?;
        let meta = Self { revision: Revision(revision.cast_unsigned()), tasks: tasks.cast_unsigned() };
        let fresh = written == 0 && meta == Self::default();
        if fresh || written == i64::from(meta.checksum()) { Ok(meta) } else { Err(broken()) }
    }

    pub(super) fn store(self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES (1, ?1, ?2, ?3)")?
            .execute(params![self.revision.0.cast_signed(), self.tasks.cast_signed(), self.checksum()])
            .map(|_| ())
    }
}

/// A task that the present drain has touched.
#[derive(Default)]
struct Touched {
    /// A row that goes, with the options it was indexed by.
    dropped: Option<(u64, Arc<TaskOptions>)>,
    live: Option<Box<Live>>,
}

struct Live {
    seq: u64,
    /// There when the row is not in the table yet.
    fresh: Option<Arc<TaskSpec>>,
    status: TaskStatus,
    outputs: Vec<(u32, Output)>,
}

/// Writes drains: many commits, folded to the last state of each task, in one transaction.
pub(super) struct Writer<'a> {
    pub(super) connection: Connection,
    pub(super) path: &'a Path,
    pub(super) meta: Meta,
    live: Generations<(u64, TaskStatus)>,
    /// Rows of those that have ended: all that matters of them is where they are when they go.
    ended: Generations<u64>,
}

/// What was touched lately, and before; the oldest is forgotten.
struct Generations<T> {
    young: HashMap<TaskId, T>,
    old: HashMap<TaskId, T>,
}

impl<T> Generations<T> {
    fn new() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }

    fn insert(&mut self, id: TaskId, known: T) {
        if self.young.len() >= KNOWN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, known);
    }

    fn remove(&mut self, id: &TaskId) -> Option<T> {
        self.young.remove(id).or_else(|| self.old.remove(id))
    }
}

/// The tasks that a drain is about, in the order in which it touches them.
#[derive(Default)]
struct Drain {
    places: HashMap<TaskId, usize>,
    tasks: Vec<Touched>,
    /// Those of them that have a row to be written.
    rows: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(connection: Connection, path: &'a Path, meta: Meta) -> Self {
        Self { connection, path, meta, live: Generations::new(), ended: Generations::new() }
    }

    /// Writes the events after the present revision; all of them, or none and an error.
    pub(super) fn write(&mut self, commits: &[Arc<Commit>]) -> Result<(), StoreError> {
        let written = self.try_write(commits);
        if written.is_err() {
            // What is known may be ahead of the tables now.
            self.forget();
        }
        written
    }

    fn forget(&mut self) {
        self.live = Generations::new();
        self.ended = Generations::new();
    }

    /// Gives back the memory that only makes writing faster.
    pub(super) fn give_back(&mut self) {
        self.forget();
        if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
            tracing::debug!(%error, "the projection's page cache could not be given back");
        }
    }

    fn try_write(&mut self, commits: &[Arc<Commit>]) -> Result<(), StoreError> {
        let mut drain = Drain::default();
        let mut meta = self.meta;
        for commit in commits {
            for event in &commit.events {
                if event.revision <= meta.revision {
                    continue;
                }
                if event.revision != meta.revision.next() {
                    let text = format!("revision {} does not follow {}", event.revision, meta.revision);
                    return Err(corrupt(self.path, "meta", &event.task.to_string(), &damage(text)));
                }
                meta.revision = event.revision;
                self.take(&mut drain, event)?;
            }
            if drain.rows >= ROWS_MAX {
                meta = self.store(std::mem::take(&mut drain), meta)?;
            }
        }
        self.store(drain, meta).map(|_| ())
    }

    /// One transaction.
    fn store(&mut self, drain: Drain, mut meta: Meta) -> Result<Meta, StoreError> {
        let path = self.path;
        let transact = || -> rusqlite::Result<Meta> {
            let transaction = self.connection.unchecked_transaction()?;
            store_touched(&transaction, &drain.tasks, &mut meta)?;
            meta.store(&transaction)?;
            transaction.commit()?;
            Ok(meta)
        };
        let stored = { transact }();
        self.meta = stored.map_err(|error| fault("write to", path, &error))?;
        self.remember(drain);
        Ok(self.meta)
    }

    fn take(&mut self, drain: &mut Drain, event: &Event) -> Result<(), StoreError> {
        let place = if let Some(place) = drain.places.get(&event.task) {
            *place
        } else {
            let touched = self.touch(event)?;
            drain.rows += usize::from(touched.live.is_some());
            drain.tasks.push(touched);
            drain.places.insert(event.task.clone(), drain.tasks.len() - 1);
            drain.tasks.len() - 1
        };
        let entry = &mut drain.tasks[place];
        match &event.change {
            Change::Submitted { spec } => {
                let (seq, status) = (event.revision.0, submitted(event));
                entry.live = Some(Box::new(Live { seq, fresh: Some(Arc::clone(spec)), status, outputs: Vec::new() }));
                drain.rows += 1;
            }
            Change::Deleted => {
                let Some(live) = entry.live.take() else { return Ok(()) };
                drain.rows -= 1;
                if live.fresh.is_none() {
                    entry.dropped = Some((live.seq, Arc::clone(&event.options)));
                }
            }
            _ => {
                // A task submitted before the journal's beginning, after a rebuild: there is nothing to change.
                let Some(live) = &mut entry.live else { return Ok(()) };
                advance(&mut live.status, event);
                if let Some(output) = output_of(event) {
                    live.outputs.push((event.attempt, output.clone()));
                }
            }
        }
        Ok(())
    }

    /// The task as last written.
    fn touch(&mut self, event: &Event) -> Result<Touched, StoreError> {
        let id = &event.task;
        match &event.change {
            Change::Submitted { .. } => return Ok(Touched::default()),
            Change::Deleted => {
                if let Some(seq) = self.ended.remove(id) {
                    return Ok(Touched { dropped: Some((seq, Arc::clone(&event.options))), live: None });
                }
            }
            _ => {}
        }
        let found = match self.live.remove(id) {
            Some(known) => Some(known),
            None => status_of(&self.connection, self.path, id)?,
        };
        let live = found.map(|(seq, status)| Box::new(Live { seq, fresh: None, status, outputs: Vec::new() }));
        Ok(Touched { dropped: None, live })
    }

    fn remember(&mut self, mut drain: Drain) {
        for (id, place) in drain.places {
            let Some(live) = drain.tasks[place].live.take() else { continue };
            if live.status.state.is_terminal() {
                self.ended.insert(id, live.seq);
            } else {
                self.live.insert(id, (live.seq, live.status));
            }
        }
    }
}

fn store_touched(transaction: &Transaction<'_>, touched: &[Touched], meta: &mut Meta) -> rusqlite::Result<()> {
    let dropped: Vec<_> = touched.iter().filter_map(|entry| entry.dropped.as_ref()).collect();
    delete(transaction, &dropped)?;
    let mut live: Vec<&Live> = touched.iter().filter_map(|entry| entry.live.as_deref()).collect();
    // In the order of the table, so that pages are touched once.
    live.sort_unstable_by_key(|live| live.seq);
    let inserted = insert(transaction, &live)?;
    meta.tasks = meta.tasks + inserted - dropped.len() as u64;
    update(transaction, &live)?;
    store_bodies(transaction, &live)
}

fn delete(transaction: &Transaction<'_>, dropped: &[&(u64, Arc<TaskOptions>)]) -> rusqlite::Result<()> {
    for table in ["tasks", "payloads", "results", "outputs"] {
        let mut statement = transaction.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?1"))?;
        for (seq, _) in dropped {
            statement.execute([seq.cast_signed()])?;
        }
    }
    let mut statement = transaction.prepare_cached("DELETE FROM labels WHERE key = ?1 AND value = ?2 AND seq = ?3")?;
    for (seq, options) in dropped {
        for (key, value) in &options.labels {
            statement.execute(params![key, value, seq.cast_signed()])?;
        }
    }
    Ok(())
}

/// Inserts what is fresh; says how many rows that were.
fn insert(transaction: &Transaction<'_>, live: &[&Live]) -> rusqlite::Result<u64> {
    let mut task = transaction.prepare_cached(
        "INSERT INTO tasks(seq, id, namespace, state, priority, pool, handler, batch, submitted_at, finished_at,
            spec_crc, status_crc, status, options, spec)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    let mut label = transaction.prepare_cached("INSERT OR REPLACE INTO labels VALUES (?1, ?2, ?3)")?;
    let mut payload = transaction.prepare_cached("INSERT INTO payloads VALUES (?1, ?2, ?3)")?;
    let mut encoded: HashMap<*const TaskOptions, Vec<u8>> = HashMap::new();
    let mut inserted = 0;
    for live in live {
        let Some(spec) = &live.fresh else { continue };
        let (options, at, key) = (&spec.options, live.status.submitted_at.0, live.seq.cast_signed());
        let bytes = encoded.entry(Arc::as_ptr(options)).or_insert_with(|| options_bytes(options));
        let row = SpecRow::new(live.seq, spec, at, bytes);
        let (status, status_crc) = status_row(live.seq, &live.status);
        task.execute(params![
            key,
            row.id,
            options.namespace.as_str(),
            live.status.state as u8,
            options.priority as u8,
            options.pool.as_str(),
            options.handler.as_str(),
            options.batch.as_ref().map(crate::model::BatchId::as_str),
            at.cast_signed(),
            live.status.finished_at.map(|at| at.0.cast_signed()),
            row.crc,
            status_crc,
            status,
            &bytes[..],
            row.spec,
        ])?;
        for (name, value) in &options.labels {
            label.execute(params![name, value, key])?;
        }
        if let Some((body, crc)) = &row.payload {
            payload.execute(params![key, crc, &body[..]])?;
        }
        inserted += 1;
    }
    Ok(inserted)
}

fn update(transaction: &Transaction<'_>, live: &[&Live]) -> rusqlite::Result<()> {
    let mut statement = transaction
        .prepare_cached("UPDATE tasks SET state = ?2, finished_at = ?3, status = ?4, status_crc = ?5 WHERE seq = ?1")?;
    for live in live.iter().filter(|live| live.fresh.is_none()) {
        let (status, crc) = status_row(live.seq, &live.status);
        let finished_at = live.status.finished_at.map(|at| at.0.cast_signed());
        statement.execute(params![live.seq.cast_signed(), live.status.state as u8, finished_at, status, crc])?;
    }
    Ok(())
}

/// Results and outputs.
fn store_bodies(transaction: &Transaction<'_>, live: &[&Live]) -> rusqlite::Result<()> {
    let mut result = transaction.prepare_cached("INSERT OR REPLACE INTO results VALUES (?1, ?2, ?3)")?;
    let mut output = transaction.prepare_cached("INSERT OR REPLACE INTO outputs VALUES (?1, ?2, ?3, ?4)")?;
    for live in live {
        let key = live.seq.cast_signed();
        if let Some(payload) = live.status.result.as_ref().filter(|result| !is_inline(result)) {
            let body = result_bytes(payload);
            result.execute(params![key, body_checksum(live.seq, &body), body])?;
        }
        for (attempt, written) in &live.outputs {
            let body = output_bytes(written);
            let crc = body_checksum(live.seq ^ u64::from(*attempt).rotate_left(32), &body);
            output.execute(params![key, attempt, crc, body])?;
        }
    }
    Ok(())
}
