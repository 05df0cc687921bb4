//! The rows of one export on their way to the file.

use std::io::{self, Write};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::ExportError;
use super::value::Value;
use super::writer::{Shortened, TableWriter};
use crate::runners::StopSignal;

/// Between two reports of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Rows between two checks for a stop, and whether a report is due.
const CHECK_ROWS: u64 = 100;

pub(super) type Progress<'a> = &'a (dyn Fn(f32, &str) + Send + Sync);

pub(super) struct Rows<'a> {
    writer: Box<dyn TableWriter + Send + 'a>,
    stop: &'a StopSignal,
    progress: Progress<'a>,
    /// An estimate; `None` if it is unknown.
    expected: Option<u64>,
    pub count: u64,
    reported: Instant,
}

impl<'a> Rows<'a> {
    pub fn new(
        writer: Box<dyn TableWriter + Send + 'a>,
        stop: &'a StopSignal,
        progress: Progress<'a>,
        expected: Option<u64>,
    ) -> Self {
        Self { writer, stop, progress, expected, count: 0, reported: Instant::now() }
    }

    pub fn cell(&mut self, value: &Value<'_>) -> Result<(), ExportError> {
        Ok(self.writer.cell(value)?)
    }

    pub fn end_row(&mut self) -> Result<(), ExportError> {
        self.writer.end_row()?;
        self.count += 1;
        if !self.count.is_multiple_of(CHECK_ROWS) {
            return Ok(());
        }
        if self.stop.cause().is_some() {
            return Err(ExportError::Stopped);
        }
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.reported = Instant::now();
            self.report();
        }
        Ok(())
    }

    pub fn finish(self) -> Result<(u64, Shortened), ExportError> {
        self.report();
        let shortened = self.writer.finish()?;
        // The row that shows that there are more is not in the file.
        Ok((self.count - u64::from(shortened.rows), shortened))
    }

    fn report(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a fraction needs few digits")]
        let fraction = self.expected.map_or(0.0, |expected| self.count as f32 / expected.max(1) as f32);
        // The end of the task is the end of its file.
        (self.progress)(fraction.min(0.99), &format!("{} rows", self.count));
    }
}

/// A file that takes no more once a stop was requested, so that no format writes on for long.
pub(super) struct StoppableFile<'a, W> {
    pub file: W,
    pub stop: &'a StopSignal,
    /// Why the file took no more.
    pub failure: &'a Mutex<Option<io::Error>>,
}

impl<W: Write> Write for StoppableFile<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.cause().is_some() {
            return Err(io::Error::other("a stop was requested"));
        }
        self.file.write(bytes).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                *self.failure.lock() = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
