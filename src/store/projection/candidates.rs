//! The rows that a listing can contain, found in the indexes, newest submission first.
//!
//! Each condition of a filter has an index whose entries are in the order of the listing, so the next row that fulfils
//! all of them is found by lookups in turn: each skips to the position of the previous one. A page costs lookups in
//! proportion to its rows, however many tasks there are. When the conditions have few rows in common that cannot be so;
//! then the page ends early.

use std::collections::BinaryHeap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Params, params};

use super::kinds;
use crate::model::{TaskFilter, TaskState};
use crate::store::error::StoreError;
use crate::store::sqlite::sqlite_error;

/// Number of lookups after which a page ends.
const LOOKUPS_MAX: usize = if cfg!(test) { 1_000 } else { 20_000 };
/// Number of combinations of kind and state that are merged. For more, rows are read and compared with the filter.
const COMBINATIONS_MAX: usize = if cfg!(test) { 64 } else { 4_096 };

pub(super) const BY_ID: &str = "SELECT seq FROM tasks WHERE id = ?1";
pub(super) const BY_BATCH: &str =
    "SELECT seq FROM tasks INDEXED BY tasks_batch WHERE batch = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1";
pub(super) const BY_LABEL: &str =
    "SELECT seq FROM labels WHERE key = ?1 AND value = ?2 AND seq < ?3 ORDER BY seq DESC LIMIT 1";
pub(super) const BY_STATE: &str =
    "SELECT seq FROM task_states WHERE kind = ?1 AND state = ?2 AND seq < ?3 ORDER BY seq DESC LIMIT 1";

pub(super) struct Candidates<'a> {
    connection: &'a Connection,
    path: &'a Path,
    /// A candidate is in all of them. Empty if every row is a candidate.
    sources: Vec<Source>,
    /// Whether a row that does not match the filter, except for its time, is damaged.
    is_exact: bool,
    lookups: usize,
}

enum Source {
    /// In descending order.
    Rows(Vec<u64>),
    Batch(String),
    Label(String, String),
    /// Row, kind and state: for each combination of kind and state a row that is not older than its next one.
    States(BinaryHeap<(u64, i64, u8)>),
}

/// Where the next candidate is.
pub(super) enum Next {
    /// The newest row before this one. If there are conditions, it is the row directly before.
    Before(u64),
    /// There is no further candidate.
    End,
    /// There may be candidates before this row, but the page must end.
    Paused(u64),
}

impl<'a> Candidates<'a> {
    pub(super) fn new(connection: &'a Connection, path: &'a Path, filter: &TaskFilter) -> Result<Self, StoreError> {
        let mut candidates = Self { connection, path, sources: Vec::new(), is_exact: true, lookups: 0 };
        candidates.add_sources(filter).map_err(|error| sqlite_error("read", path, &error))?;
        Ok(candidates)
    }

    fn add_sources(&mut self, filter: &TaskFilter) -> rusqlite::Result<()> {
        // Failures and texts have no index.
        self.is_exact = !filter.needs_failures();
        if !filter.ids.is_empty() {
            let mut rows = Vec::new();
            for id in &filter.ids {
                rows.extend(find(self.connection, BY_ID, [id.to_string()])?);
            }
            rows.sort_unstable_by(|a, b| b.cmp(a));
            rows.dedup();
            self.sources.push(Source::Rows(rows));
            // There are so few rows that the other conditions need no index.
            self.is_exact = false;
            return Ok(());
        }
        self.sources.extend(filter.batch.iter().map(|batch| Source::Batch(batch.to_string())));
        let labels = filter.labels.iter();
        self.sources.extend(labels.map(|(key, value)| Source::Label(key.to_string(), value.to_string())));
        let any_kind = filter.namespaces.is_empty() && filter.priorities.is_empty();
        if any_kind && filter.pool.is_none() && filter.handler.is_none() && filter.states.is_empty() {
            return Ok(());
        }
        let kinds = kinds::matching(self.connection, filter)?;
        let states = if filter.states.is_empty() { &TaskState::ALL[..] } else { &filter.states };
        let mut states: Vec<u8> = states.iter().map(|state| *state as u8).collect();
        states.sort_unstable();
        states.dedup();
        if kinds.len() * states.len() > COMBINATIONS_MAX {
            self.is_exact = false;
            return Ok(());
        }
        let all = kinds.iter().flat_map(|kind| states.iter().map(|state| (u64::MAX, *kind, *state)));
        self.sources.push(Source::States(all.collect()));
        Ok(())
    }

    /// Finds the newest candidate before a row.
    pub(super) fn next(&mut self, before: u64) -> Result<Next, StoreError> {
        self.seek(before).map_err(|error| sqlite_error("read", self.path, &error))
    }

    fn seek(&mut self, before: u64) -> rusqlite::Result<Next> {
        if self.lookups > LOOKUPS_MAX {
            return Ok(Next::Paused(before));
        }
        self.lookups += 1;
        let mut bound = before;
        let mut agreeing = 0;
        for index in (0..self.sources.len()).cycle() {
            let Some(row) = self.sources[index].newest(self.connection, bound, &mut self.lookups)? else {
                return Ok(Next::End);
            };
            agreeing = if agreeing > 0 && row + 1 == bound { agreeing + 1 } else { 1 };
            bound = row + 1;
            if agreeing == self.sources.len() {
                return Ok(Next::Before(bound));
            }
            if self.lookups > LOOKUPS_MAX && bound < before {
                return Ok(Next::Paused(bound));
            }
        }
        Ok(Next::Before(before))
    }

    /// Whether a row that does not match the filter, except for its time, is damaged.
    pub(super) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Whether a candidate must be the row directly before the bound.
    pub(super) fn has_conditions(&self) -> bool {
        !self.sources.is_empty()
    }
}

impl Source {
    /// The newest row before `before`.
    fn newest(&mut self, connection: &Connection, before: u64, lookups: &mut usize) -> rusqlite::Result<Option<u64>> {
        *lookups += 1;
        let bound = i64::try_from(before).unwrap_or(i64::MAX);
        match self {
            Self::Rows(rows) => Ok(rows.get(rows.partition_point(|row| *row >= before)).copied()),
            Self::Batch(batch) => find(connection, BY_BATCH, params![&*batch, bound]),
            Self::Label(key, value) => find(connection, BY_LABEL, params![&*key, &*value, bound]),
            Self::States(combinations) => {
                while let Some((row, kind, state)) = combinations.peek().copied() {
                    if row < before {
                        return Ok(Some(row));
                    }
                    combinations.pop();
                    *lookups += 1;
                    let found = find(connection, BY_STATE, params![kind, state, bound])?;
                    combinations.extend(found.map(|row| (row, kind, state)));
                }
                Ok(None)
            }
        }
    }
}

fn find(connection: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<Option<u64>> {
    let row = connection.prepare_cached(sql)?.query_row(values, |row| row.get::<_, i64>(0)).optional()?;
    Ok(row.map(i64::cast_unsigned))
}
