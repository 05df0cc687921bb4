//! Exports of tables and queries of databases to files, which are artifacts of their tasks.
//!
//! An export is a stream: a source reads rows with a cursor and gives their cells to the writer of a format, which writes to the
//! file. So its memory does not depend on the number of rows, except for PDF files, whose rows are limited. A payload chooses
//! among what the operator has configured; its values are bound to parameters of the query.

mod attempt;
mod buffer;
mod calendar;
mod csv;
mod decimal;
mod error;
mod excel;
mod format;
mod input;
mod json_lines;
mod options;
mod pdf;
mod postgres;
mod query;
mod request;
mod rows;
mod runner;
mod sqlite;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use options::{Database, ExportOptions, OptionsError, PostgresOptions, Source};
pub use postgres::check_ca;
pub use runner::ExportRunner;
