//! The tables of `projection.db`, and its meta row.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::{batches, requests};
use crate::model::Revision;
use crate::store::error::StoreError;
use crate::store::record::checksum;
use crate::store::sqlite::{Conversion, Schema, sqlite_error};

/// `seq` is the revision of the submission of a task, or of the creation of a batch or a schedule.
pub const SCHEMA: Schema = Schema {
    application_id: 0x4c53_5031,
    migrations: &[
        "CREATE TABLE tasks(
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
        INSERT INTO meta VALUES (1, 0, 0, 0);",
        "CREATE TABLE subjects(id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
        INSERT INTO subjects VALUES (1, 0, x'');",
        "CREATE TABLE kinds(
            id INTEGER PRIMARY KEY,
            namespace TEXT NOT NULL,
            pool TEXT NOT NULL,
            handler TEXT NOT NULL,
            priority INTEGER NOT NULL
        );
        INSERT INTO kinds SELECT NULL, * FROM (SELECT DISTINCT namespace, pool, handler, priority FROM tasks);
        CREATE TABLE task_states(kind INTEGER, state INTEGER, seq INTEGER, PRIMARY KEY (kind, state, seq)) WITHOUT ROWID;
        INSERT INTO task_states SELECT k.id, t.state, t.seq FROM tasks t
            JOIN kinds k USING (namespace, pool, handler, priority) ORDER BY k.id, t.state, t.seq;
        DROP INDEX tasks_seldom;",
        "CREATE TABLE requests(
            number INTEGER PRIMARY KEY,
            hash INTEGER NOT NULL,
            namespace TEXT NOT NULL,
            request_id TEXT NOT NULL,
            task TEXT NOT NULL,
            submission INTEGER NOT NULL,
            at INTEGER NOT NULL,
            digest BLOB NOT NULL,
            crc INTEGER NOT NULL
        );
        CREATE INDEX requests_hash ON requests(hash);",
        "CREATE TABLE batches(
            seq INTEGER PRIMARY KEY,
            namespace TEXT NOT NULL,
            id TEXT NOT NULL,
            crc INTEGER NOT NULL,
            body BLOB NOT NULL,
            UNIQUE (namespace, id)
        );",
        "CREATE TABLE schedules(
            seq INTEGER PRIMARY KEY,
            namespace TEXT NOT NULL,
            id TEXT NOT NULL,
            crc INTEGER NOT NULL,
            body BLOB NOT NULL,
            UNIQUE (namespace, id)
        );",
        "CREATE TABLE limit_tokens(
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            key TEXT NOT NULL,
            full_at INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            PRIMARY KEY (namespace, name, key)
        ) WITHOUT ROWID;
        CREATE INDEX limit_tokens_full_at ON limit_tokens(full_at);",
    ],
    shrinks: true,
    conversions: &[
        Conversion { version: 4, run: requests::take_over },
        Conversion { version: 5, run: batches::take_over },
    ],
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The last revision that the tables contain.
    pub revision: Revision,
    /// Number of rows in `tasks`, so that a lost row is detected.
    pub tasks: u64,
}

impl Meta {
    pub fn load(connection: &Connection, path: &Path) -> Result<Self, StoreError> {
        let failed = |error| sqlite_error("read", path, &error);
        let columns = connection
            .prepare_cached("SELECT revision, tasks, checksum FROM meta WHERE id = 1")
            .map_err(failed)?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
            .optional()
            .map_err(failed)?;
        let corrupt = || StoreError::malformed(path, "checksum mismatch in table meta");
        let (revision, tasks, written) = columns.ok_or_else(corrupt)?;
        let meta = Self { revision: Revision(revision.cast_unsigned()), tasks: tasks.cast_unsigned() };
        let is_new = written == 0 && meta == Self::default();
        if is_new || written == i64::from(meta.checksum()) { Ok(meta) } else { Err(corrupt()) }
    }

    pub(super) fn store(self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES (1, ?1, ?2, ?3)")?
            .execute(params![self.revision.0.cast_signed(), self.tasks.cast_signed(), self.checksum()])
            .map(|_| ())
    }

    fn checksum(self) -> u32 {
        checksum(&[&self.revision.0.to_le_bytes(), &self.tasks.to_le_bytes()])
    }
}
