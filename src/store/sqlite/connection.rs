//! Opens a database file for writing and migrates it.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::error::sqlite_error;
use super::free_pages;
use super::read_errors;
use crate::files::{close_to_others, make_private};
use crate::store::error::StoreError;
use crate::store::paths::{shm_path, wal_path};

/// How long a statement waits for the lock of another connection.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A write-ahead log that has become longer, since a reader kept a checkpoint from finishing, is cut to this when it starts
/// over. More than a log has otherwise.
const WAL_KEPT_BYTES: u32 = if cfg!(test) { 2 << 20 } else { 128 << 20 };
/// Number of prepared statements that a connection keeps.
pub(super) const STATEMENT_CACHE: usize = 64;

pub struct Schema {
    /// `PRAGMA application_id`: distinguishes our files from those of other programs.
    pub application_id: i32,
    /// Step N migrates version N to version N + 1; `PRAGMA user_version` is the version. Append only.
    pub migrations: &'static [&'static str],
    /// Whether free pages can be returned to the file system; see [`release_free_pages`]. Files keep what they were created
    /// with.
    ///
    /// [`release_free_pages`]: super::free_pages::release_free_pages
    pub shrinks: bool,
    /// What SQL alone cannot migrate, in order. Runs on the newest tables.
    pub conversions: &'static [Conversion],
}

/// Runs once, when a file reaches `version`.
pub struct Conversion {
    pub version: i64,
    pub run: fn(&Connection, &Path) -> Result<(), StoreError>,
}

/// Opens a database file. SQLite would take a relative path such as `file:name` or `:memory:` for something else.
pub fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    read_errors::report_as_io_errors();
    let connection = Connection::open_with_flags(absolute(path)?, flags)?;
    // Or SQLite would plan some statements again each time that they get other values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Opens a file that nobody writes to, also on a read-only file system. Its log is ignored.
pub fn connect_immutable(path: &Path) -> rusqlite::Result<Connection> {
    read_errors::report_as_io_errors();
    let mut uri = String::from("file:");
    for byte in absolute(path)?.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            // Writing to a string does not fail.
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri + "?immutable=1", flags)
}

fn absolute(path: &Path) -> rusqlite::Result<PathBuf> {
    std::path::absolute(path).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))
}

/// Opens the writing connection of a file, creates the file if necessary, and migrates it to the current version.
/// Leaves a file of another program unchanged. The write-ahead log is kept until [`keep_wal_on_close`] turns that off.
pub fn open_writer(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let failed = |error| sqlite_error("open", path, &error);
    // SQLite gives the log the mode of the file; only one of an older version can have another.
    let io_failed = |error| StoreError::io("create", path, &error);
    make_private(path).map_err(io_failed)?;
    for other in [wal_path(path), shm_path(path)] {
        close_to_others(&other).map_err(io_failed)?;
    }
    let mut connection = connect(path, OpenFlags::default()).map_err(failed)?;
    keep_wal_on_close(&connection, true).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    let (version, is_new) = schema_version(&connection, path, schema)?;
    // A new file has one page; more pages arrive from the log, together with the tables.
    let page_size: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed)?;
    if is_new && std::fs::metadata(path).is_ok_and(|file| file.len() > page_size.cast_unsigned()) {
        let detail = format!("it is incomplete without its log `{}`", wal_path(path).display());
        return Err(StoreError::corrupt(path, "its start", detail));
    }
    if is_new && schema.shrinks {
        free_pages::enable(&connection).map_err(failed)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES).map_err(failed)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(failed)?;
    if connection.is_readonly(MAIN_DB).map_err(failed)? && File::options().write(true).open(path).is_ok() {
        return Err(StoreError::malformed(path, "according to its header it may not be written"));
    }
    migrate(&mut connection, path, schema, version)?;
    Ok(connection)
}

/// Migrates a file in one transaction.
fn migrate(connection: &mut Connection, path: &Path, schema: &Schema, version: i64) -> Result<(), StoreError> {
    let failed = |error| sqlite_error("open", path, &error);
    let newest = schema.newest();
    if version == newest {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(failed)?;
    for sql in schema.migrations.iter().skip(usize::try_from(version).unwrap_or_default()) {
        transaction.execute_batch(sql).map_err(failed)?;
    }
    for conversion in schema.conversions.iter().filter(|conversion| conversion.version > version) {
        (conversion.run)(&transaction, path)?;
    }
    transaction.pragma_update(None, "application_id", schema.application_id).map_err(failed)?;
    transaction.pragma_update(None, "user_version", newest).map_err(failed)?;
    transaction.commit().map_err(failed)
}

impl Schema {
    fn newest(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }
}

/// The version of a file, and whether it has no tables yet.
///
/// # Errors
/// [`StoreError::Incompatible`] when it belongs to another program or to a later version.
pub fn schema_version(connection: &Connection, path: &Path, schema: &Schema) -> Result<(i64, bool), StoreError> {
    let number = |sql: &str| {
        let result = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        result.map_err(|error| sqlite_error("open", path, &error))
    };
    let incompatible = |detail: String| StoreError::Incompatible { path: path.to_owned(), detail };
    let is_new = number("SELECT count(*) FROM sqlite_schema")? == 0;
    if !is_new && number("PRAGMA application_id")? != i64::from(schema.application_id) {
        let detail = "it belongs to another program; move it away or choose another data directory";
        return Err(incompatible(detail.to_owned()));
    }
    let version = number("PRAGMA user_version")?;
    let newest = schema.newest();
    if version > newest {
        let detail = format!("it has format {version}, but this version supports formats up to {newest}; upgrade");
        return Err(incompatible(detail));
    }
    Ok((version, is_new))
}

/// Whether the write-ahead log stays when the last connection closes. It must stay until it has been verified, since
/// it is the only evidence of corruption.
pub fn keep_wal_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(|_| ())
}

/// Copies pages from the write-ahead log into the database file, as far as readers allow.
pub fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
