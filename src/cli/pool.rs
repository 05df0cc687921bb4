//! `lineshaft pool`.

use std::collections::HashMap;

use clap::builder::NonEmptyStringValueParser;
use clap::builder::styling::AnsiColor;
use clap::{ArgGroup, Subcommand};

use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::{CommandResult, Exit};
use super::format;
use super::printer::Printer;
use super::table::{Column, Table, TableArgs};
use super::view::{self, Cell, Text, View};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List pools, with their busy workers and queued tasks
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        table: TableArgs,
    },
    /// Show the settings of pools
    #[command(visible_alias = "show")]
    Get {
        /// Pool name
        #[arg(required = true, add = complete::pools())]
        names: Vec<String>,
    },
    /// Resize, pause or resume a pool, or set its queue limit
    ///
    /// Changes survive restarts until the server's configuration file gives the setting a new value.
    #[command(group = ArgGroup::new("change").required(true).multiple(true).args(["size", "pause", "resume", "queue_limit"]))]
    Update {
        /// Pool name
        #[arg(add = complete::pools())]
        name: String,
        /// Number of workers, 1 to 1000
        #[arg(long, value_name = "N")]
        size: Option<i32>,
        /// Start no more tasks; running tasks continue
        #[arg(long, conflicts_with = "resume")]
        pause: bool,
        /// Start tasks again
        #[arg(long)]
        resume: bool,
        /// Maximum number of queued tasks, 1 to 100000000; further submissions are refused
        #[arg(long, value_name = "N")]
        queue_limit: Option<i64>,
        /// Change the pool only if it still has this etag (from `pool get`)
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        etag: Option<String>,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::List { table } => return list(&table, &client, printer).await,
        Command::Get { names } => {
            let get = async |name| {
                let response = client.pools().get_pool(v1::GetPoolRequest { name }).await?.into_inner();
                Ok(response.pool.unwrap_or_default())
            };
            return printer.print_each(names, get, details).await;
        }
        Command::Update { name, size, pause, resume, queue_limit, etag } => {
            let paused = (pause || resume).then_some(pause);
            let etag = etag.unwrap_or_default();
            let request = v1::UpdatePoolRequest { name, size, paused, queue_limit, etag };
            let response = client.pools().update_pool(request).await?.into_inner();
            printer.print(&response.pool.unwrap_or_default(), |pool| details(pool, &printer.view()));
        }
    }
    Ok(Exit::Success)
}

/// A pool with what it does now.
#[derive(Debug)]
struct PoolRow {
    pool: v1::Pool,
    metrics: v1::PoolMetrics,
}

static COLUMNS: [Column<PoolRow>; 7] = [
    Column::new("NAME", 0, |row, _| row.pool.name.as_str().into()),
    Column::new("STATE", 0, |row, _| state(&row.pool)),
    Column::new("BUSY", 0, |row, _| busy(&row.metrics)),
    Column::new("QUEUED", 0, |row, _| Cell::number(row.metrics.queued)),
    Column::new("QUEUE LIMIT", 2, |row, _| Cell::number(row.pool.queue_limit)),
    Column::new("KIND", 1, |row, _| format::pool_kind(row.pool.kind).into()),
    Column::text("DESCRIPTION", 3, |row, _| row.pool.description.as_str().into()),
];

async fn list(table: &TableArgs, client: &Client, printer: Printer) -> CommandResult {
    let table = Table::new(&COLUMNS, table)?;
    let mut response = client.pools().list_pools(v1::ListPoolsRequest {}).await?.into_inner();
    let mut metrics: HashMap<String, v1::PoolMetrics> = HashMap::new();
    if !response.pools.is_empty() {
        let mut samples =
            client.pools().stream_pool_metrics(v1::StreamPoolMetricsRequest::default()).await?.into_inner();
        let sample = samples.message().await?.unwrap_or_default();
        metrics.extend(sample.pools.into_iter().map(|pool| (pool.pool.clone(), pool)));
    }
    let mut row = |pool: v1::Pool| PoolRow { metrics: metrics.remove(&pool.name).unwrap_or_default(), pool };
    let mut rows: Vec<_> = response.pools.drain(..).map(&mut row).collect();
    table.sort(&mut rows, &printer.view());
    response.pools.extend(rows.iter().map(|row| row.pool.clone()));
    printer.print(&response, |_| table.text(&rows, &printer.view()));
    Ok(Exit::Success)
}

fn state(pool: &v1::Pool) -> Cell {
    if pool.paused { Cell::from("paused").colored(AnsiColor::Yellow) } else { "active".into() }
}

/// Busy workers, and all.
pub fn busy(metrics: &v1::PoolMetrics) -> Cell {
    Cell::from(format!("{}/{}", metrics.busy, metrics.size)).ordered_by(metrics.busy)
}

fn details(pool: &v1::Pool, view: &View) -> Text {
    let limit = (pool.max_running_per_namespace > 0).then(|| pool.max_running_per_namespace.to_string());
    view::fields(
        view,
        &[
            ("name", pool.name.as_str().into()),
            ("description", pool.description.as_str().into()),
            ("kind", format::pool_kind(pool.kind).into()),
            ("size", Cell::number(pool.size)),
            ("state", state(pool)),
            ("queue limit", Cell::number(pool.queue_limit)),
            ("default timeout", format::duration(pool.default_timeout.as_ref()).into()),
            ("running per namespace", limit.unwrap_or_default().into()),
            ("namespaces", pool.namespaces.join(" ").into()),
            ("etag", pool.etag.as_str().into()),
        ],
    )
}
