//! PDF: a table on A4 pages with a repeated header.
//!
//! All rows are kept until the end, since the widths of the columns depend on them; so their number and the length of their
//! texts are limited.

mod fonts;
mod layout;
mod page;

use std::io::{self, Write};

pub use fonts::{FontError, Fonts};
use layout::{Cell, Layout};

use super::value::Value;
use super::writer::{Heading, Shortened, TableWriter};

pub(super) const ROWS_MAX: u64 = 10_000;
pub(super) const COLUMNS_MAX: usize = 30;
/// Bytes of the text of a cell that are kept: more than it can show.
const KEPT_BYTES: usize = 400;

pub(super) struct PdfWriter<W> {
    file: W,
    title: String,
    columns: Vec<String>,
    fonts: Fonts,
    cells: Vec<Cell>,
    rows: u64,
    shortened: Shortened,
}

impl<W: Write> PdfWriter<W> {
    pub fn new(heading: &Heading<'_>, fonts: &Fonts, file: W) -> Self {
        let (title, columns) = (heading.title.to_owned(), heading.columns.to_vec());
        Self { file, title, columns, fonts: fonts.clone(), cells: Vec::new(), rows: 0, shortened: Shortened::default() }
    }

    /// How many rows there are, and whether that is all.
    fn note(&self) -> String {
        let noun = if self.rows == 1 { "row" } else { "rows" };
        let rows = thousands(self.rows);
        if self.shortened.rows {
            format!("The first {rows} {noun}; there are more. Use csv, jsonl or xlsx for all.")
        } else {
            format!("{rows} {noun}")
        }
    }
}

impl<W: Write> TableWriter for PdfWriter<W> {
    fn cell(&mut self, value: &Value<'_>) -> io::Result<()> {
        if self.rows == ROWS_MAX {
            self.shortened.rows = true;
            return Ok(());
        }
        let mut text = Vec::new();
        value.write_text(&mut text);
        self.cells.push(Cell::new(&text, KEPT_BYTES, value.is_number()));
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        if self.rows < ROWS_MAX {
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<Shortened> {
        let note = self.note();
        let header = self.columns.iter().map(|name| Cell::new(name.as_bytes(), KEPT_BYTES, false)).collect();
        let mut faces = self.fonts.faces();
        let layout = Layout::new(header, std::mem::take(&mut self.cells), &mut faces);
        self.shortened.cells = layout.cut_cells;
        let document = page::draw(&layout, &self.title, &note, &mut faces)?;
        self.file.write_all(&document)?;
        self.file.flush()?;
        Ok(self.shortened)
    }
}

/// With a comma between groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(super::thousands(number), text);
        }
    }
}
