//! What an export needs beside the database.

use std::io::Write;
use std::sync::Arc;

use super::error::ExportError;
use super::options::ExportOptions;
use super::pdf::Fonts;
use super::query::{Dialect, Query, SourceColumn};
use super::request::Request;
use super::rows::{Progress, Rows};
use super::writer::Heading;
use crate::runners::StopSignal;

pub(super) struct Export<'a> {
    pub options: &'a ExportOptions,
    pub request: &'a Request,
    pub fonts: &'a Fonts,
    pub title: &'a str,
    pub stop: &'a Arc<StopSignal>,
    pub progress: Progress<'a>,
}

impl Export<'_> {
    pub(super) fn query(&self, available: &[SourceColumn], dialect: Dialect) -> Result<Query, ExportError> {
        Query::new(self.options, self.request, available, dialect)
    }

    /// Begins the file. `expected` is an estimate of the number of rows.
    pub(super) fn rows<'w>(
        &'w self,
        query: &Query,
        expected: Option<u64>,
        file: impl Write + Send + 'w,
    ) -> Result<Rows<'w>, ExportError> {
        let heading = Heading { title: self.title, columns: &query.columns };
        let writer = self.request.format.writer(&heading, self.fonts, file)?;
        let expected = [expected, query.limit].into_iter().flatten().min();
        Ok(Rows::new(writer, self.stop, self.progress, expected))
    }
}
