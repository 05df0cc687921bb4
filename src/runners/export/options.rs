//! An export handler as the operator registered it.

use std::path::PathBuf;

use super::pdf::FontError;

#[derive(Clone, Debug)]
pub struct ExportOptions {
    pub database: Database,
    pub source: Source,
    /// Columns that a file can have, in their order; empty: all.
    pub columns: Vec<String>,
    /// Columns that a payload can filter.
    pub filters: Vec<String>,
    /// Fonts of PDF files for characters that the built-in one lacks.
    pub fonts: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
pub enum Database {
    Sqlite(PathBuf),
    Postgres(PostgresOptions),
}

#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Without a password.
    pub url: String,
    pub password_file: Option<PathBuf>,
    /// PEM file with the CAs of the server; `None`: those of the system.
    pub ca: Option<PathBuf>,
}

/// Where the rows come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// With or without a schema: `lease`, `park.lease`.
    Table(String),
    /// A SELECT.
    Query(String),
}

#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(transparent)]
    Font(#[from] FontError),
}
