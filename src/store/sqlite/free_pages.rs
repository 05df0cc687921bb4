//! Returns free pages of a database file to the file system.
//!
//! Deleted rows leave free pages in the file, which later rows take. Only when there are many more than that needs, pages
//! from the end of the file are moved into free ones and the file is shortened. Files of versions that created them
//! without `auto_vacuum` keep their size: only a copy of the whole file could change that.

use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Free pages that stay in the file: 16 MiB.
const KEPT_PAGES: u64 = if cfg!(test) { 16 } else { 4_096 };
/// Pages that are returned in one transaction.
const STEP_PAGES: u32 = 32;
/// How long [`release_free_pages`] takes, about.
const STEP_TIME: Duration = Duration::from_millis(10);

/// Makes a file that has no tables yet able to return free pages. Then a write that adds or frees pages of long rows
/// changes a page more.
pub(super) fn enable(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")
}

/// What [`release_free_pages`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    pub any: bool,
    /// Whether there is more to release.
    pub more: bool,
}

/// Returns some pages if more than a quarter of the file is free. The file becomes shorter with the next checkpoint.
pub fn release_free_pages(connection: &Connection) -> rusqlite::Result<Released> {
    let end = Instant::now() + STEP_TIME;
    let mut free = count(connection, "PRAGMA freelist_count")?;
    let mut any = false;
    while free > KEPT_PAGES.max(count(connection, "PRAGMA page_count")? / 4) {
        if Instant::now() >= end {
            return Ok(Released { any, more: true });
        }
        release(connection)?;
        let before = std::mem::replace(&mut free, count(connection, "PRAGMA freelist_count")?);
        if free >= before {
            break;
        }
        any = true;
    }
    Ok(Released { any, more: false })
}

fn release(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
    let mut rows = statement.query([])?;
    // One row for each page.
    while rows.next()?.is_some() {}
    Ok(())
}

fn count(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::sqlite::{Schema, checkpoint, open_writer};

    const ROWS: i64 = 400;

    fn schema(shrinks: bool) -> Schema {
        Schema {
            application_id: 1,
            migrations: &["CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)"],
            shrinks,
            conversions: &[],
        }
    }

    fn fill(connection: &Connection) {
        for id in 0..ROWS {
            connection.execute("INSERT INTO t VALUES (?1, zeroblob(10000))", [id]).unwrap();
        }
    }

    fn size(path: &Path, connection: &Connection) -> u64 {
        checkpoint(connection).unwrap();
        std::fs::metadata(path).unwrap().len()
    }

    /// Size of the file with rows, without them, and after the release of free pages.
    fn sizes(shrinks: bool) -> [u64; 3] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let connection = open_writer(&path, &schema(shrinks)).unwrap();
        fill(&connection);
        let full = size(&path, &connection);
        connection.execute("DELETE FROM t WHERE id % 40 > 0", []).unwrap();
        let empty = size(&path, &connection);
        while release_free_pages(&connection).unwrap().more {}
        let rows: i64 = connection.query_row("SELECT sum(length(body)) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, ROWS / 40 * 10_000);
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        [full, empty, size(&path, &connection)]
    }

    #[test]
    fn a_file_becomes_shorter_when_most_of_its_pages_are_free() {
        let [full, empty, shrunk] = sizes(true);
        assert!(full > 4_000_000 && empty == full && shrunk < 300_000, "{full}, {empty}, {shrunk}");
    }

    #[test]
    fn a_file_of_an_earlier_version_keeps_its_size() {
        let [full, empty, shrunk] = sizes(false);
        assert!(empty == full && shrunk == full, "{full}, {empty}, {shrunk}");
    }

    #[test]
    fn free_pages_that_later_rows_will_take_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let connection = open_writer(&path, &schema(true)).unwrap();
        fill(&connection);
        connection.execute("DELETE FROM t WHERE id % 5 = 0", []).unwrap();
        assert_eq!(release_free_pages(&connection).unwrap(), Released::default());
    }

    #[test]
    fn a_log_that_a_reader_made_long_becomes_short_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let connection = open_writer(&path, &schema(true)).unwrap();
        let log = || std::fs::metadata(crate::store::paths::wal_path(&path)).unwrap().len();
        {
            let reader = Connection::open(&path).unwrap();
            let transaction = reader.unchecked_transaction().unwrap();
            transaction.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
            fill(&connection);
            checkpoint(&connection).unwrap();
            assert!(log() > 4_000_000, "{}", log());
        }
        checkpoint(&connection).unwrap();
        connection.execute("INSERT INTO t VALUES (-1, x'')", []).unwrap();
        assert!(log() <= 2 << 20, "{}", log());
    }
}
