//! Rows of a PostgreSQL database.
//!
//! The rows arrive in the binary format, in which most values need no conversion by the server. What the server sends ahead is
//! bounded by the buffers of the connection.

mod connection;
mod tls;
mod values;

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::Client;

use connection::Connected;
use tls::Tls;
use values::{Bound, Decoder};

use super::error::{ExportError, text_of};
use super::input::Export;
use super::options::PostgresOptions;
use super::query::{Dialect, Query, SourceColumn, all_of};
use super::writer::Shortened;
use crate::runners::StopCause;

const DIALECT: Dialect = Dialect { placeholder: '$' };

/// Whether a file has the CAs of a server, or why not. Blocks.
pub fn check_ca(path: &Path) -> Result<(), String> {
    Tls::new(Some(path)).map(drop)
}

/// Cancels the query on the server when a stop is requested.
pub(super) async fn export(
    server: &PostgresOptions,
    export: &Export<'_>,
    file: impl Write + Send,
) -> Result<(u64, Shortened), ExportError> {
    let mut connected = tokio::select! {
        biased;
        _ = export.stop.wait(StopCause::Timeout) => return Err(ExportError::Stopped),
        connected = Connected::open(server) => connected?,
    };
    let read = tokio::select! {
        biased;
        _ = export.stop.wait(StopCause::Timeout) => Err(ExportError::Stopped),
        read = connected.io.drive(read(&connected.client, export, file)) => read,
    };
    match read {
        // The query still runs.
        Err(ExportError::Stopped | ExportError::File(_)) => connected.cancel().await,
        Ok(_) | Err(_) => connected.close().await,
    }
    read
}

async fn read(client: &Client, export: &Export<'_>, file: impl Write + Send) -> Result<(u64, Shortened), ExportError> {
    client
        .batch_execute("BEGIN READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL IntervalStyle = 'iso_8601'")
        .await
        .map_err(failure)?;
    let available = columns(client, &all_of(&export.options.source)).await?;
    let query = export.query(&available, DIALECT)?;
    let expected = expected(client, &query).await?;
    let statement = client.prepare(&query.sql).await.map_err(failure)?;
    let decoders: Vec<Decoder> = statement.columns().iter().map(|column| Decoder::of(column.type_())).collect();
    let mut rows = export.rows(&query, expected, file)?;
    let stream = client.query_raw(&statement, bound(&query)).await.map_err(|error| refused(error, &query))?;
    let mut stream = pin!(stream);
    while let Some(row) = stream.try_next().await.map_err(failure)? {
        for (index, decoder) in decoders.iter().enumerate() {
            rows.cell(&decoder.value(row.try_get(index).map_err(failure)?)?)?;
        }
        rows.end_row()?;
    }
    rows.finish()
}

async fn columns(client: &Client, source: &str) -> Result<Vec<SourceColumn>, ExportError> {
    let statement = client.prepare(source).await.map_err(failure)?;
    let column = |column: &tokio_postgres::Column| SourceColumn {
        name: column.name().to_owned(),
        expression: Decoder::expression(column.type_()),
    };
    Ok(statement.columns().iter().map(column).collect())
}

/// The planner's estimate of the number of rows.
async fn expected(client: &Client, query: &Query) -> Result<Option<u64>, ExportError> {
    let statement = client.prepare(&format!("EXPLAIN (FORMAT JSON) {}", query.sql)).await.map_err(failure)?;
    let stream = client.query_raw(&statement, bound(query)).await.map_err(|error| refused(error, query))?;
    let rows: Vec<_> = stream.try_collect().await.map_err(|error| refused(error, query))?;
    let plan: Option<values::Raw<'_>> = rows.first().and_then(|row| row.try_get(0).ok());
    let plan: Option<serde_json::Value> = plan.and_then(|plan| serde_json::from_slice(plan.0).ok());
    Ok(plan.and_then(|plan| plan[0]["Plan"]["Plan Rows"].as_u64()))
}

fn bound(query: &Query) -> impl ExactSizeIterator<Item = Bound<'_>> {
    query.parameters.iter().map(|parameter| Bound(&parameter.value))
}

/// Another attempt can succeed if the connection ended, or the server lacked a resource or is starting.
fn failure(error: tokio_postgres::Error) -> ExportError {
    let Some(found) = error.as_db_error() else {
        return ExportError::Connection(text_of(&error));
    };
    let mut text = found.message().to_owned();
    for (name, more) in [("detail", found.detail()), ("hint", found.hint())] {
        if let Some(more) = more {
            write!(text, "; {name}: {more}").expect("a text takes everything");
        }
    }
    write!(text, " (SQLSTATE {})", found.code().code()).expect("a text takes everything");
    match found.code().code().get(..2) {
        // Connection, transaction rollback, resources, lock, operator intervention, system error.
        Some("08" | "40" | "53" | "55" | "57" | "58") => ExportError::Connection(text),
        _ => ExportError::Query(text),
    }
}

/// A value of the payload that the server does not take for the type of its column is an error of the payload.
fn refused(error: tokio_postgres::Error, query: &Query) -> ExportError {
    let parameter = error.as_db_error().filter(|found| found.code().code().starts_with("22")).and_then(|found| {
        // The context is `unnamed portal parameter $2 = '…'`.
        let (_, number) = found.where_()?.split_once("parameter $")?;
        let digits = number.split(|char: char| !char.is_ascii_digit()).next()?;
        let index: usize = digits.parse().ok()?;
        Some((query.parameters.get(index.checked_sub(1)?)?, found.message()))
    });
    match parameter {
        Some((parameter, message)) => {
            ExportError::Request(format!("`{}` does not suit its column: {message}", parameter.field))
        }
        None => failure(error),
    }
}
