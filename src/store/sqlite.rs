//! What the journal and the projection share of SQLite: opening, migrations, readers, and errors.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// How long a statement waits for another connection's lock before it fails.
const BUSY: Duration = Duration::from_secs(10);
/// Idle reader connections that are kept.
const READERS_KEPT: usize = 8;
/// Statements that a connection keeps prepared.
const STATEMENTS_KEPT: usize = 64;

/// What a file of ours looks like.
pub(super) struct Schema {
    /// `PRAGMA application_id`: tells our files from those of other programs.
    pub(super) application_id: i32,
    /// Step N brings version N to version N + 1; `PRAGMA user_version` counts them. Only ever appended to.
    pub(super) migrations: &'static [&'static str],
}

/// Opens the writing connection of a file, creates the file when there is none, and brings it to the
/// present version. A file that is not ours is left as it is. Its log is kept until [`keep_log`] says otherwise.
pub(super) fn open_writer(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let fault = |error| fault("open", path, &error);
    let mut connection = Connection::open(path).map_err(fault)?;
    keep_log(&connection, true).map_err(fault)?;
    connection.busy_timeout(BUSY).map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let (version, fresh) = expect_ours(&connection, path, schema)?;
    // What is written first is one page; the rest comes from the log, with the tables.
    let pages: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(fault)?;
    if fresh && std::fs::metadata(path).is_ok_and(|file| file.len() > pages.cast_unsigned()) {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            place: "its beginning".to_owned(),
            detail: format!("it makes no sense without its log `{}`", super::wal::log_of(path).display()),
        });
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fault)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(fault)?;
    for (step, sql) in schema.migrations.iter().enumerate().skip(usize::try_from(version).unwrap_or_default()) {
        let transaction = connection.transaction().map_err(fault)?;
        transaction.execute_batch(sql).map_err(fault)?;
        transaction.pragma_update(None, "application_id", schema.application_id).map_err(fault)?;
        transaction.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX)).map_err(fault)?;
        transaction.commit().map_err(fault)?;
    }
    Ok(connection)
}

/// The version of a file, and whether it has no tables yet.
///
/// # Errors
/// [`StoreError::Foreign`] when it belongs to another program or to a later version.
pub(super) fn expect_ours(connection: &Connection, path: &Path, schema: &Schema) -> Result<(i64, bool), StoreError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let number = |sql| number(sql).map_err(|error| fault("open", path, &error));
    let fresh = number("SELECT count(*) FROM sqlite_schema")? == 0;
    if !fresh && number("PRAGMA application_id")? != i64::from(schema.application_id) {
        return Err(foreign(path, "it belongs to another program; move it away, or choose another data directory"));
    }
    let version = number("PRAGMA user_version")?;
    let known = i64::try_from(schema.migrations.len()).unwrap_or(i64::MAX);
    if version > known {
        let detail = format!("its format {version} is of a later version, this one knows up to {known}; upgrade");
        return Err(foreign(path, detail));
    }
    Ok((version, fresh))
}

/// Whether the log stays when the connection is the last to close: as long as what it holds has not been
/// verified, it is the only witness of what is wrong.
pub(super) fn keep_log(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(|_| ())
}

fn foreign(path: &Path, detail: impl Into<String>) -> StoreError {
    StoreError::Foreign { path: path.to_owned(), detail: detail.into() }
}

/// Connections that only read, handed out one to a question.
pub(super) struct Readers {
    path: PathBuf,
    free: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), free: Mutex::default() }
    }

    /// Lends a connection inside one read transaction, so that all it sees is of one moment.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.free.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().map_err(|error| fault("open", &self.path, &error))?,
        };
        let answer = {
            let transaction = connection.unchecked_transaction().map_err(|error| fault("read", &self.path, &error))?;
            ask(&transaction)
        };
        let mut free = self.free.lock();
        if free.len() < READERS_KEPT {
            free.push(connection);
        }
        answer
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    }
}

/// Copies finished pages of the write-ahead log into the main file, as far as nobody is in the way.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Says an error of SQLite in the store's words.
pub(super) fn fault(action: &'static str, path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let io = |remedy: &str| StoreError::Io { action, path: path.clone(), detail: format!("{error}; {remedy}") };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::NotADatabase) => StoreError::Foreign {
            path,
            detail: "it is not a data file, or its beginning is damaged; move it away or restore it from a back-up"
                .to_owned(),
        },
        Some(ErrorCode::DatabaseCorrupt) => {
            StoreError::Corrupt { path, place: "its structure".to_owned(), detail: error.to_string() }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            io("the server needs write access to the file and its directory")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            io("another program holds it; only the server may write to it")
        }
        Some(_) => io("check the disk and the system's log"),
        // No code of SQLite: a column has another type than was written.
        None => StoreError::Corrupt { path, place: "a row".to_owned(), detail: error.to_string() },
    }
}
