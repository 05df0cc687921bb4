//! One export: from the payload to a complete file.

use std::io::Write;

use parking_lot::Mutex;

use super::error::ExportError;
use super::input::Export;
use super::options::Database;
use super::rows::StoppableFile;
use super::writer::Shortened;
use super::{postgres, sqlite};

/// What a file contains.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub rows: u64,
    pub shortened: Shortened,
}

/// Blocks, except while it waits for a server.
pub(super) async fn run(export: &Export<'_>, file: impl Write + Send) -> Result<Summary, ExportError> {
    let failure = Mutex::default();
    let file = StoppableFile { file, stop: export.stop, failure: &failure };
    let written = match &export.options.database {
        Database::Sqlite(path) => sqlite::export(path, export, file),
        Database::Postgres(server) => postgres::export(server, export, file).await,
    };
    match (written, failure.into_inner()) {
        (Ok((rows, shortened)), _) => Ok(Summary { rows, shortened }),
        // A stop shows as an error of the file or the query.
        (Err(_), _) if export.stop.cause().is_some() => Err(ExportError::Stopped),
        // Formats hide the cause in errors of their own.
        (Err(_), Some(failure)) => Err(ExportError::File(failure)),
        (Err(error), None) => Err(error),
    }
}
