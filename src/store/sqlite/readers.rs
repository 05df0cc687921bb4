//! A pool of read-only connections.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use super::connection::{BUSY_TIMEOUT, STATEMENT_CACHE, connect};
use super::error::sqlite_error;
use crate::store::error::StoreError;

/// Number of idle connections that are kept open.
const IDLE_MAX: usize = 8;

pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default() }
    }

    /// Runs `query` inside one read transaction, so that all its statements see the same state.
    pub fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().map_err(|error| sqlite_error("open", &self.path, &error))?,
        };
        let result = {
            let transaction =
                connection.unchecked_transaction().map_err(|error| sqlite_error("read", &self.path, &error))?;
            query(&transaction)
        };
        // A connection whose query failed is not used again: its cache may have to do with the failure.
        if result.is_ok() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
        result
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = connect(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    }
}
