//! Why an export fails.

use std::fmt::Write;
use std::io;

#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// The payload asks for something that there is not.
    #[error("{0}")]
    Request(String),
    /// The database cannot be reached, or has ended the connection. Another attempt could succeed.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// The database refused the query. Another attempt would fail, too.
    #[error("the query failed: {0}")]
    Query(String),
    #[error("failed to write the file: {0}")]
    File(#[from] io::Error),
    /// A stop was requested.
    #[error("stopped")]
    Stopped,
}

/// With the causes.
pub(super) fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").expect("a text takes everything");
        source = cause.source();
    }
    text
}
