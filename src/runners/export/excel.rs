//! Excel workbooks: rows go to a temporary file one by one, so memory does not grow with them.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError};

use super::calendar::MICROS_PER_DAY;
use super::csv::is_formula;
use super::value::Value;
use super::writer::{Heading, Shortened, TableWriter};

/// Rows of a sheet, with the header. Further rows go to the next sheet.
const ROWS_MAX: u32 = 1_048_576;
pub(super) const COLUMNS_MAX: usize = 16_384;
/// UTF-16 code units of a cell.
const UNITS_MAX: usize = 32_767;
/// Integers up to this magnitude, and decimals of up to 15 digits, are exact in a cell; larger ones are texts.
const INTEGER_MAX: u64 = 999_999_999_999_999;
const DIGITS_MAX: usize = 15;
/// 1900-03-01, before which Excel has a day that did not exist.
const FIRST_DATE: i32 = -25_508;
/// 9999-12-31.
const LAST_DATE: i32 = 2_932_896;
/// Days from Excel's day 0 to 1970-01-01.
const EPOCH: i32 = 25_569;
/// Rows that decide the widths of the columns.
const MEASURED_ROWS: u32 = 1_000;
/// Size of uncompressed sheets from which the archive needs 64-bit sizes, with a margin.
const LARGE_BYTES: u64 = 2 << 30;
/// Bytes of the markup of a cell.
const MARKUP_BYTES: u64 = 64;

pub(super) struct ExcelWriter<W> {
    workbook: Workbook,
    sheet: Worksheet,
    file: W,
    columns: Vec<String>,
    formats: Formats,
    /// Of each column, in characters.
    widths: Vec<usize>,
    /// Where the next cell goes.
    row: u32,
    column: u16,
    sheets: u32,
    bytes: u64,
    text: Vec<u8>,
    shortened: Shortened,
}

struct Formats {
    header: Format,
    date: Format,
    timestamp: Format,
    time: Format,
    /// Excel does not take the text for a formula, even if a person edits the cell.
    quoted: Format,
}

impl<W: Write + Send> ExcelWriter<W> {
    pub fn new(heading: &Heading<'_>, file: W) -> io::Result<Self> {
        let mut workbook = Workbook::new();
        let sheet = workbook.new_worksheet_with_constant_memory().map_err(failed)?;
        let formats = Formats {
            header: Format::new().set_bold(),
            date: Format::new().set_num_format("yyyy-mm-dd"),
            timestamp: Format::new().set_num_format("yyyy-mm-dd hh:mm:ss"),
            time: Format::new().set_num_format("hh:mm:ss"),
            quoted: Format::new().set_quote_prefix(),
        };
        let mut writer = Self {
            workbook,
            sheet,
            file,
            columns: heading.columns.to_vec(),
            formats,
            widths: heading.columns.iter().map(|name| name.chars().count()).collect(),
            row: 0,
            column: 0,
            sheets: 0,
            bytes: 0,
            text: Vec::new(),
            shortened: Shortened::default(),
        };
        writer.begin_sheet()?;
        Ok(writer)
    }

    fn begin_sheet(&mut self) -> io::Result<()> {
        self.sheets += 1;
        self.row = 0;
        let name = if self.sheets == 1 { "Data".to_owned() } else { format!("Data {}", self.sheets) };
        self.sheet.set_name(name).map_err(failed)?;
        self.sheet.set_freeze_panes(1, 0).map_err(failed)?;
        for column in 0..self.columns.len() {
            let (name, _) = within_limit(&self.columns[column]);
            let number = u16::try_from(column).unwrap_or(u16::MAX);
            self.sheet.write_string_with_format(0, number, name, &self.formats.header).map_err(failed)?;
        }
        self.row = 1;
        Ok(())
    }

    fn end_sheet(&mut self) -> io::Result<()> {
        for (column, width) in (0_u16..).zip(&self.widths) {
            let width = u16::try_from(*width).unwrap_or(u16::MAX).clamp(8, 60) + 2;
            self.sheet.set_column_width(column, f64::from(width)).map_err(failed)?;
        }
        let next = self.workbook.new_worksheet_with_constant_memory().map_err(failed)?;
        self.workbook.push_worksheet(std::mem::replace(&mut self.sheet, next));
        Ok(())
    }

    fn write(&mut self, value: &Value<'_>) -> Result<(), XlsxError> {
        let (row, column) = (self.row, self.column);
        match value {
            Value::Null => return Ok(()),
            Value::Bool(value) => self.sheet.write_boolean(row, column, *value)?,
            Value::Integer(value) if value.unsigned_abs() <= INTEGER_MAX =>
            {
                #[expect(clippy::cast_precision_loss, reason = "it has at most 15 digits")]
                self.sheet.write_number(row, column, *value as f64)?
            }
            Value::Float(value) if value.is_finite() => self.sheet.write_number(row, column, *value)?,
            Value::Date(days) if (FIRST_DATE..=LAST_DATE).contains(days) => {
                self.sheet.write_number_with_format(row, column, f64::from(*days + EPOCH), &self.formats.date)?
            }
            Value::Time(micros) if *micros < MICROS_PER_DAY => {
                self.sheet.write_number_with_format(row, column, fraction_of_day(*micros), &self.formats.time)?
            }
            Value::Timestamp { micros, .. } if is_in_calendar(*micros) => {
                let days = i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(0) + EPOCH;
                let number = f64::from(days) + fraction_of_day(micros.rem_euclid(MICROS_PER_DAY));
                self.sheet.write_number_with_format(row, column, number, &self.formats.timestamp)?
            }
            Value::Text(text) => return self.write_text(text),
            _ => {
                let bytes = self.text_of(value);
                let text = str::from_utf8(&bytes).unwrap_or_default();
                let number = if let Value::Decimal(_) = value { exact_number(text) } else { None };
                let written = match number {
                    Some(number) => self.sheet.write_number(row, column, number).map(drop),
                    None => self.write_text(text),
                };
                self.text = bytes;
                return written;
            }
        };
        Ok(())
    }

    /// Give it back to `text` for the next value.
    fn text_of(&mut self, value: &Value<'_>) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        value.write_text(&mut text);
        text
    }

    fn measure(&mut self, value: &Value<'_>) {
        let text = self.text_of(value);
        let width = String::from_utf8_lossy(&text[..text.len().min(240)]).chars().count();
        let widest = &mut self.widths[usize::from(self.column)];
        *widest = width.max(*widest);
        self.text = text;
    }

    fn write_text(&mut self, text: &str) -> Result<(), XlsxError> {
        let (text, is_cut) = within_limit(text);
        self.shortened.cells += u64::from(is_cut);
        self.bytes += text.len() as u64;
        if is_formula(&text) {
            self.sheet.write_string_with_format(self.row, self.column, text, &self.formats.quoted).map(drop)
        } else {
            self.sheet.write_string(self.row, self.column, text).map(drop)
        }
    }
}

impl<W: Write + Send> TableWriter for ExcelWriter<W> {
    fn cell(&mut self, value: &Value<'_>) -> io::Result<()> {
        if self.row == ROWS_MAX {
            self.end_sheet()?;
            self.begin_sheet()?;
        }
        // The library panics when it cannot write its temporary file.
        let written = catch_unwind(AssertUnwindSafe(|| self.write(value)));
        written.map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?.map_err(failed)?;
        if self.row <= MEASURED_ROWS {
            self.measure(value);
        }
        self.column += 1;
        self.bytes += MARKUP_BYTES;
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.column = 0;
        self.row += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<Shortened> {
        self.end_sheet()?;
        self.workbook.use_zip_large_file(self.bytes > LARGE_BYTES);
        let Self { mut workbook, mut file, shortened, .. } = *self;
        let saved = catch_unwind(AssertUnwindSafe(|| workbook.save_to_writer(&mut file)));
        saved.map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?.map_err(failed)?;
        file.flush()?;
        Ok(shortened)
    }
}

fn failed(error: XlsxError) -> io::Error {
    match error {
        XlsxError::IoError(error) | XlsxError::TempFileError(_, error) => error,
        error => io::Error::other(error),
    }
}

fn is_in_calendar(micros: i64) -> bool {
    let days = micros.div_euclid(MICROS_PER_DAY);
    (i64::from(FIRST_DATE)..=i64::from(LAST_DATE)).contains(&days)
}

/// In milliseconds, which is the resolution of Excel.
fn fraction_of_day(micros: i64) -> f64 {
    f64::from(i32::try_from(micros / 1_000).unwrap_or(0)) / 86_400_000.0
}

/// The number that a cell shows with all digits of the decimal; `None` if there is none.
fn exact_number(text: &str) -> Option<f64> {
    let digits = text.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
    let number: f64 = text.parse().ok()?;
    (digits <= DIGITS_MAX && number.is_finite()).then_some(number)
}

/// The text, or what fits into a cell of it with a mark, and whether it was cut.
fn within_limit(text: &str) -> (Cow<'_, str>, bool) {
    // A character has at most as many UTF-16 code units as bytes.
    if text.len() <= UNITS_MAX || text.encode_utf16().count() <= UNITS_MAX {
        return (text.into(), false);
    }
    let mark = format!("… [cut from {} characters]", text.chars().count());
    let room = UNITS_MAX - mark.encode_utf16().count();
    let mut units = 0;
    let end = text.char_indices().find(|(_, char)| {
        units += char.len_utf16();
        units > room
    });
    let end = end.map_or(text.len(), |(index, _)| index);
    (format!("{}{mark}", &text[..end]).into(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        let short = "é".repeat(UNITS_MAX);
        assert_eq!(within_limit(&short), (short.as_str().into(), false));
        let long = "😀".repeat(20_000);
        let (text, is_cut) = within_limit(&long);
        assert!(is_cut && text.ends_with("😀… [cut from 20000 characters]"));
        assert!((UNITS_MAX - 1..=UNITS_MAX).contains(&text.encode_utf16().count()));
    }
}
