//! Finds the rows of a period without an index on the time of submission.
//!
//! Rows are in the order of submission, so their times ascend except where the clock was set back. Between two such
//! places the first row of a period is found by binary search. The places are noted when rows are read at the start and
//! when they are written.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{TaskFilter, Timestamp};

/// Steps back that need not be noted, in microseconds.
const TOLERANCE: u64 = 1_000;

pub(super) const TIME_AT: &str =
    "SELECT seq, submitted_at FROM tasks WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT 1";
pub(super) const NEWEST: &str = "SELECT max(seq) FROM tasks";

#[derive(Default)]
pub(super) struct SubmissionTimes {
    /// The first row after each step back.
    steps: Vec<u64>,
    last_row: u64,
    /// The latest time since the last step back.
    latest: Timestamp,
}

impl SubmissionTimes {
    /// Notes a row before it becomes visible. Rows must come in ascending order; one that came before is ignored.
    pub(super) fn add(&mut self, row: u64, at: Timestamp) {
        if row <= self.last_row {
            return;
        }
        self.last_row = row;
        if at.0 + TOLERANCE < self.latest.0 {
            self.steps.push(row);
            self.latest = at;
        }
        self.latest = self.latest.max(at);
    }

    /// The rows between the steps, newest first.
    pub(super) fn runs(&self) -> Vec<Range<u64>> {
        let starts = std::iter::once(0).chain(self.steps.iter().copied());
        let ends = self.steps.iter().copied().chain([u64::MAX]);
        let mut runs: Vec<_> = starts.zip(ends).map(|(start, end)| start..end).collect();
        runs.reverse();
        runs
    }
}

/// Whether a filter has a condition on the time.
pub(super) fn has_period(filter: &TaskFilter) -> bool {
    filter.submitted_from.is_some() || filter.submitted_until.is_some()
}

/// The part of a run outside of which no row was submitted in the period of the filter.
pub(super) fn narrow(connection: &Connection, run: Range<u64>, filter: &TaskFilter) -> rusqlite::Result<Range<u64>> {
    let newest: Option<i64> = connection.prepare_cached(NEWEST)?.query_row([], |row| row.get(0))?;
    let rows = run.start..run.end.min(newest.map_or(0, |row| row.cast_unsigned() + 1));
    let mut narrowed = rows.clone();
    if let Some(from) = filter.submitted_from {
        narrowed.start = first_at_or_after(connection, rows.clone(), from.0.saturating_sub(TOLERANCE))?;
    }
    if let Some(until) = filter.submitted_until {
        narrowed.end = first_at_or_after(connection, rows, until.0.saturating_add(TOLERANCE))?;
    }
    Ok(narrowed)
}

/// A place in the rows with an earlier time before it, and this or a later time after it.
fn first_at_or_after(connection: &Connection, mut rows: Range<u64>, at: u64) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(TIME_AT)?;
    while rows.start < rows.end {
        let middle = rows.start + (rows.end - rows.start) / 2;
        let values = params![middle.cast_signed(), rows.end.cast_signed()];
        let found = statement.query_row(values, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()?;
        match found {
            Some((row, time)) if time.cast_unsigned() < at => rows.start = row.cast_unsigned() + 1,
            _ => rows.end = middle,
        }
    }
    Ok(rows.start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_period_is_found_although_the_clock_was_set_back(
            rows in proptest::collection::vec((1_u64..4, -2_000_i64..4_000, 0_u8..12), 1..60),
            period in (0_u64..60_000, 0_u64..60_000),
        ) {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE tasks(seq INTEGER PRIMARY KEY, submitted_at INTEGER)").unwrap();
            let mut times = SubmissionTimes::default();
            let (mut seq, mut at) = (0, 30_000_u64);
            let mut expected = Vec::new();
            let filter = TaskFilter {
                submitted_from: Some(Timestamp(period.0)),
                submitted_until: Some(Timestamp(period.1)),
                ..TaskFilter::default()
            };
            for (gap, change, step) in rows {
                seq += gap;
                at = at.saturating_add_signed(if step == 0 { change * 10 } else { change.abs() / 10 });
                times.add(seq, Timestamp(at));
                // A row that was deleted since then.
                if step != 1 {
                    connection.execute("INSERT INTO tasks VALUES (?1, ?2)", params![seq.cast_signed(), at.cast_signed()]).unwrap();
                    expected.extend((period.0..period.1).contains(&at).then_some(seq));
                }
            }
            let mut found = Vec::new();
            for run in times.runs() {
                let rows = narrow(&connection, run, &filter).unwrap();
                found.extend(rows.rev());
            }
            prop_assert!(found.is_sorted_by(|a, b| a > b), "newest first: {found:?}");
            for row in expected {
                prop_assert!(found.contains(&row), "{row} is not in {found:?}");
            }
        }
    }

    #[test]
    fn rows_outside_of_a_period_are_not_read() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE tasks(seq INTEGER PRIMARY KEY, submitted_at INTEGER)").unwrap();
        let mut times = SubmissionTimes::default();
        for row in 1..=1_000 {
            times.add(row, Timestamp(row * 1_000_000));
            let values = params![row.cast_signed(), row.cast_signed() * 1_000_000];
            connection.execute("INSERT INTO tasks VALUES (?1, ?2)", values).unwrap();
        }
        let (from, until) = (Some(Timestamp(300_000_000)), Some(Timestamp(310_000_000)));
        let filter = TaskFilter { submitted_from: from, submitted_until: until, ..TaskFilter::default() };
        let mut runs = times.runs();
        assert_eq!(narrow(&connection, runs.pop().unwrap(), &filter).unwrap(), 300..311);
        assert!(runs.is_empty());
    }
}
