//! Rows of a SQLite database.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement, params_from_iter};
use serde::de::IgnoredAny;

use super::calendar;
use super::decimal::Decimal;
use super::error::ExportError;
use super::input::Export;
use super::options::Source;
use super::query::{Dialect, Query, SourceColumn, all_of};
use super::request::Scalar;
use super::value::{Value, on_one_line};
use super::writer::Shortened;

/// Instructions of SQLite's virtual machine between two checks for a stop: less than a millisecond.
const CHECK_INSTRUCTIONS: i32 = 10_000;
/// How long it waits for a writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const DIALECT: Dialect = Dialect { placeholder: '?' };

/// How the texts and numbers of a column are read, after its declared type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declared {
    Bool,
    Date,
    Timestamp,
    Decimal,
    Json,
    Other,
}

/// Blocks.
pub(super) fn export(
    path: &Path,
    export: &Export<'_>,
    file: impl Write + Send,
) -> Result<(u64, Shortened), ExportError> {
    let failed = |error| failure(path, &error);
    let connection = open(path, export).map_err(failed)?;
    let available = columns(&connection, &export.options.source).map_err(failed)?;
    let query = export.query(&available, DIALECT)?;
    let mut statement = connection.prepare(&query.sql).map_err(failed)?;
    let declared: Vec<Declared> = statement.columns().map(|column| Declared::of(column.decl_type())).collect();
    let mut rows = export.rows(&query, expected(&connection, &export.options.source, &query), file)?;
    let values = query.parameters.iter().map(|parameter| bound(&parameter.value));
    let mut found = statement.query(params_from_iter(values)).map_err(failed)?;
    while let Some(row) = found.next().map_err(failed)? {
        for (index, declared) in declared.iter().enumerate() {
            rows.cell(&value(row.get_ref(index).map_err(failed)?, *declared))?;
        }
        rows.end_row()?;
    }
    rows.finish()
}

fn open(path: &Path, export: &Export<'_>) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    let stop = Arc::clone(export.stop);
    connection.progress_handler(CHECK_INSTRUCTIONS, Some(move || stop.cause().is_some()))?;
    Ok(connection)
}

fn columns(connection: &Connection, source: &Source) -> rusqlite::Result<Vec<SourceColumn>> {
    let statement: Statement<'_> = connection.prepare(&all_of(source))?;
    let column = |name: &str| SourceColumn { name: name.to_owned(), expression: "{}" };
    Ok(statement.column_names().map(column).collect())
}

/// The largest row number of a table, which is found at once, unlike the number of rows.
fn expected(connection: &Connection, source: &Source, query: &Query) -> Option<u64> {
    if query.has_filters || !matches!(source, Source::Table(_)) {
        return None;
    }
    let largest = all_of(source).replacen("SELECT *", "SELECT max(rowid)", 1);
    let largest: i64 = connection.query_row(&largest, [], |row| row.get(0)).ok()?;
    u64::try_from(largest).ok()
}

fn bound(value: &Scalar) -> ToSqlOutput<'_> {
    match value {
        Scalar::Bool(value) => ToSqlOutput::Owned(Owned::Integer(i64::from(*value))),
        Scalar::Integer(value) => ToSqlOutput::Owned(Owned::Integer(*value)),
        Scalar::Float(value) => ToSqlOutput::Owned(Owned::Real(*value)),
        Scalar::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
    }
}

impl Declared {
    fn of(declared: Option<&str>) -> Self {
        let name = declared.unwrap_or_default().to_ascii_uppercase();
        let base = name.split('(').next().unwrap_or_default().trim();
        match base {
            "BOOL" | "BOOLEAN" => Self::Bool,
            "DATE" => Self::Date,
            "DATETIME" | "TIMESTAMP" | "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" => Self::Timestamp,
            "DECIMAL" | "NUMERIC" => Self::Decimal,
            "JSON" | "JSONB" => Self::Json,
            _ => Self::Other,
        }
    }
}

/// A value that does not suit the declared type stays what it is.
fn value(stored: ValueRef<'_>, declared: Declared) -> Value<'_> {
    match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value @ 0..=1) if declared == Declared::Bool => Value::Bool(value == 1),
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Float(value),
        ValueRef::Blob(bytes) => Value::Bytes(bytes),
        ValueRef::Text(bytes) => match String::from_utf8_lossy(bytes) {
            Cow::Borrowed(text) => parsed(text, declared).unwrap_or(Value::Text(Cow::Borrowed(text))),
            repaired @ Cow::Owned(_) => Value::Text(repaired),
        },
    }
}

fn parsed(text: &str, declared: Declared) -> Option<Value<'_>> {
    match declared {
        Declared::Date => calendar::parse_date(text).map(Value::Date),
        Declared::Timestamp => {
            let (micros, is_instant) = calendar::parse_timestamp(text)?;
            Some(Value::Timestamp { micros, is_instant })
        }
        Declared::Decimal => Decimal::parse(text).map(Value::Decimal),
        Declared::Json => {
            serde_json::from_str::<IgnoredAny>(text).ok()?;
            Some(Value::Json(on_one_line(text)))
        }
        Declared::Bool | Declared::Other => None,
    }
}

fn failure(path: &Path, error: &rusqlite::Error) -> ExportError {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OutOfMemory, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(
            CannotOpen
            | DatabaseBusy
            | DatabaseLocked
            | DiskFull
            | FileLockingProtocolFailed
            | OutOfMemory
            | SystemIoFailure,
        ) => ExportError::Connection(format!("`{}`: {error}", path.display())),
        Some(ErrorCode::OperationInterrupted) => ExportError::Stopped,
        _ => ExportError::Query(error.to_string()),
    }
}
