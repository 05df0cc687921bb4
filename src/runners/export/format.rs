//! The formats of files.

use std::io::{self, Write};

use serde::Deserialize;

use super::csv::CsvWriter;
use super::excel::ExcelWriter;
use super::json_lines::JsonLinesWriter;
use super::pdf::{Fonts, PdfWriter};
use super::writer::{Heading, TableWriter};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    #[default]
    Csv,
    Jsonl,
    Xlsx,
    Pdf,
}

impl Format {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Xlsx => "xlsx",
            Self::Pdf => "pdf",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Jsonl => "application/jsonl",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Self::Pdf => "application/pdf",
        }
    }

    /// `None`: no limit.
    pub fn rows_max(self) -> Option<u64> {
        (self == Self::Pdf).then_some(super::pdf::ROWS_MAX)
    }

    /// `None`: no limit.
    pub fn columns_max(self) -> Option<usize> {
        match self {
            Self::Csv | Self::Jsonl => None,
            Self::Xlsx => Some(super::excel::COLUMNS_MAX),
            Self::Pdf => Some(super::pdf::COLUMNS_MAX),
        }
    }

    /// Starts a file.
    pub fn writer<'a>(
        self,
        heading: &Heading<'_>,
        fonts: &Fonts,
        file: impl Write + Send + 'a,
    ) -> io::Result<Box<dyn TableWriter + Send + 'a>> {
        Ok(match self {
            Self::Csv => Box::new(CsvWriter::new(heading.columns, file)),
            Self::Jsonl => Box::new(JsonLinesWriter::new(heading.columns, file)),
            Self::Xlsx => Box::new(ExcelWriter::new(heading, file)?),
            Self::Pdf => Box::new(PdfWriter::new(heading, fonts, file)),
        })
    }
}
