//! Reads one page of a listing.

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection};

use super::candidates::{Candidates, Next};
use super::query::{Bodies, RESULT_AT, select_rows};
use super::rows::{RowReader, add_result, corrupt_task};
use super::schema::Meta;
use super::submission_times::{SubmissionTimes, has_period, narrow};
use crate::model::{Task, TaskFilter};
use crate::store::error::StoreError;
use crate::store::page::{Page, PageBuilder, PageCursor, PageSize};
use crate::store::sqlite::sqlite_error;

/// Reads the newest row before another one.
pub(super) const ROW_BEFORE: &str = "t.seq < ?1 ORDER BY t.seq DESC LIMIT 1";

pub(super) fn list(
    connection: &Connection,
    path: &Path,
    times: &Mutex<SubmissionTimes>,
    filter: &TaskFilter,
    size: PageSize,
    after: Option<PageCursor>,
) -> Result<Page, StoreError> {
    let failed = |error| sqlite_error("read", path, &error);
    let revision = Meta::load(connection, path)?.revision;
    let sql = select_rows(Bodies { payloads: false, results: size.results }, ROW_BEFORE);
    let mut listing = Listing {
        path,
        filter,
        results: size.results,
        candidates: Candidates::new(connection, path, filter)?,
        statement: connection.prepare_cached(&sql).map_err(failed)?,
        reader: RowReader::new(path),
        page: PageBuilder::new(size, revision),
    };
    let before = after.map_or(u64::MAX, |PageCursor(row)| row);
    if !has_period(filter) {
        listing.add_rows(0, before)?;
        return Ok(listing.page.finish());
    }
    // Every row that the transaction sees was noted before.
    let runs = times.lock().runs();
    for mut run in runs {
        run.end = run.end.min(before);
        let rows = narrow(connection, run, filter).map_err(failed)?;
        if !listing.add_rows(rows.start, rows.end)? {
            break;
        }
    }
    Ok(listing.page.finish())
}

struct Listing<'a> {
    path: &'a Path,
    filter: &'a TaskFilter,
    results: bool,
    candidates: Candidates<'a>,
    statement: CachedStatement<'a>,
    reader: RowReader<'a>,
    page: PageBuilder,
}

impl Listing<'_> {
    /// Adds the matching rows from `first` to the row before `before`, newest first. Returns false when the page has ended.
    fn add_rows(&mut self, first: u64, mut before: u64) -> Result<bool, StoreError> {
        while before > first {
            let bound = match self.candidates.next(before)? {
                Next::Before(bound) => bound,
                Next::End => return Ok(true),
                Next::Paused(at) => {
                    self.page.end_at(at);
                    return Ok(false);
                }
            };
            if bound <= first {
                return Ok(true);
            }
            let Some((row, task)) = self.read_row(bound)? else { return Ok(true) };
            if row < first {
                return Ok(true);
            }
            before = row;
            if self.filter.matches_task(&task) {
                if !self.page.push(row, task) {
                    return Ok(false);
                }
            } else if self.candidates.is_exact() && self.filter.matches_period(task.status.submitted_at) {
                return Err(corrupt_task(self.path, "tasks", &task.spec.id, "the index entry does not match the row"));
            }
        }
        Ok(true)
    }

    /// The newest row before `bound`.
    fn read_row(&mut self, bound: u64) -> Result<Option<(u64, Task)>, StoreError> {
        let failed = |error| sqlite_error("read", self.path, &error);
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        let mut rows = self.statement.query([bound]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        let (seq, mut task) = self.reader.task(row)?;
        if self.candidates.has_conditions() && seq.cast_signed() + 1 != bound {
            let detail = format!("an index has row {}, which is missing", bound - 1);
            return Err(StoreError::corrupt(self.path, "table tasks", detail));
        }
        if self.results {
            let corrupt = |corruption| corrupt_task(self.path, "results", &task.spec.id, corruption);
            add_result(seq, &mut task.status, row, RESULT_AT).map_err(corrupt)?;
        } else {
            task.status.result = None;
        }
        Ok(Some((seq, task)))
    }
}
