//! The interface of a format.

use std::io;

use super::value::Value;

/// Writes a table, cell by cell.
pub(super) trait TableWriter {
    fn cell(&mut self, value: &Value<'_>) -> io::Result<()>;
    fn end_row(&mut self) -> io::Result<()>;
    /// Writes the rest of the file.
    fn finish(self: Box<Self>) -> io::Result<Shortened>;
}

/// What a file does not contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shortened {
    /// Cells whose text was too long for the format.
    pub cells: u64,
    /// There were more rows than the format takes.
    pub rows: bool,
}

/// What a file shows in addition to its rows.
pub(super) struct Heading<'a> {
    pub title: &'a str,
    pub columns: &'a [String],
}
