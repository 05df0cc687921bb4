//! `lineshaft pool`.

use std::collections::HashMap;

use clap::builder::NonEmptyStringValueParser;
use clap::builder::styling::AnsiColor;
use clap::{ArgGroup, Subcommand};
use tonic::Code;

use crate::model::limits;
use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::{CommandResult, Exit};
use super::format;
use super::output;
use super::pool_decisions::{DecisionArgs, decisions};
use super::printer::Printer;
use super::table::{Column, Table, TableArgs};
use super::view::{self, Cell, Text, View};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List pools, with their busy workers and queued tasks if the caller is a viewer of all namespaces
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
    /// List the workers of a pool, with the tasks that they run
    Workers {
        /// Pool name
        #[arg(add = complete::pools())]
        pool: String,
        /// Maximum number of workers, at least 1
        #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        #[command(flatten)]
        table: TableArgs,
    },
    /// List the last dispatches of a pool, and why each task was chosen; the newest first
    Decisions(DecisionArgs),
    /// Resize, pause or resume a pool, or set its queue limit
    ///
    /// Changes survive restarts until the server's configuration file gives the setting a new value.
    #[command(group = ArgGroup::new("change").required(true).multiple(true).args(["size", "pause", "resume", "queue_limit"]))]
    Update {
        /// Pool name
        #[arg(add = complete::pools())]
        name: String,
        /// Number of workers, 1 to 1000; not if the configuration lets the pool autoscale
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
        Command::Workers { pool, limit, table } => return workers(pool, limit, &table, &client, printer).await,
        Command::Decisions(args) => return decisions(args, &client, printer).await,
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

const BUSY: &str = "BUSY";
const QUEUED: &str = "QUEUED";

static COLUMNS: [Column<PoolRow>; 8] = [
    Column::new("NAME", 0, |row, _| row.pool.name.as_str().into()),
    Column::new("STATE", 0, |row, _| state(&row.pool)),
    Column::new(BUSY, 0, |row, _| busy(&row.metrics)),
    Column::new("AUTOSCALE", 2, |row, _| autoscale(&row.pool).into()),
    Column::new(QUEUED, 0, |row, _| Cell::number(row.metrics.queued)),
    Column::new("QUEUE LIMIT", 2, |row, _| Cell::number(row.pool.queue_limit)),
    Column::new("KIND", 1, |row, _| format::pool_kind(row.pool.kind).into()),
    Column::text("DESCRIPTION", 3, |row, _| row.pool.description.as_str().into()),
];

async fn list(table: &TableArgs, client: &Client, printer: Printer) -> CommandResult {
    let mut table = Table::new(&COLUMNS, table)?;
    let mut response = client.pools().list_pools(v1::ListPoolsRequest {}).await?.into_inner();
    let mut metrics: HashMap<String, v1::PoolMetrics> = HashMap::new();
    if !response.pools.is_empty() {
        match client.pools().stream_pool_metrics(v1::StreamPoolMetricsRequest::default()).await {
            Ok(samples) => {
                let sample = samples.into_inner().message().await?.unwrap_or_default();
                metrics.extend(sample.pools.into_iter().map(|pool| (pool.pool.clone(), pool)));
            }
            Err(status) if status.code() == Code::PermissionDenied => table.without(&[BUSY, QUEUED]),
            Err(status) => return Err(status.into()),
        }
    }
    let mut row = |pool: v1::Pool| PoolRow { metrics: metrics.remove(&pool.name).unwrap_or_default(), pool };
    let mut rows: Vec<_> = response.pools.drain(..).map(&mut row).collect();
    table.sort(&mut rows, &printer.view());
    response.pools.extend(rows.iter().map(|row| row.pool.clone()));
    printer.print(&response, |_| table.text(&rows, &printer.view()));
    Ok(Exit::Success)
}

static WORKER_COLUMNS: [Column<v1::Worker>; 9] = [
    Column::new("NAME", 0, |worker, _| worker.name.as_str().into()),
    Column::new("STATE", 0, |worker, _| worker_state(worker).into()),
    Column::new("RUNNING", 0, |worker, _| running(worker)),
    Column::new("TASK", 1, |worker, _| worker.current_task_id.as_str().into()),
    Column::new("HANDLER", 2, |worker, _| worker.current_handler.as_str().into()),
    Column::new("COMPLETED", 3, |worker, _| Cell::number(worker.completed)),
    Column::new("FAILED", 4, |worker, _| Cell::number(worker.failed)),
    Column::new("BUSY TIME", 6, |worker, _| Cell::duration(worker.busy_time.as_ref())),
    Column::text("VERSION", 5, |worker, _| {
        worker.remote.as_ref().map(|remote| remote.version.as_str()).unwrap_or_default().into()
    }),
];

/// Whether the worker takes work.
fn worker_state(worker: &v1::Worker) -> &'static str {
    match &worker.remote {
        Some(remote) if !remote.connected => "disconnected",
        _ if !worker.alive => "leaving",
        _ if worker.busy => "busy",
        _ => "idle",
    }
}

/// The attempts that it runs, and its slots.
fn running(worker: &v1::Worker) -> Cell {
    let (running, slots) = match &worker.remote {
        Some(remote) => (remote.running, remote.slots),
        None => (i32::from(worker.busy), 1),
    };
    Cell::from(format!("{running}/{slots}")).ordered_by(running)
}

async fn workers(pool: String, limit: u64, table: &TableArgs, client: &Client, printer: Printer) -> CommandResult {
    let table = Table::new(&WORKER_COLUMNS, table)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut list = v1::ListWorkersResponse::default();
    loop {
        let left = (limit - list.workers.len()).min(limits::PAGE_SIZE_MAX);
        let page_token = std::mem::take(&mut list.next_page_token);
        let page_size = i32::try_from(left).unwrap_or(i32::MAX);
        let request = v1::ListWorkersRequest { pool: pool.clone(), page_size, page_token };
        let page = client.pools().list_workers(request).await?.into_inner();
        list.workers.extend(page.workers);
        (list.revision, list.next_page_token) = (page.revision, page.next_page_token);
        if list.next_page_token.is_empty() || list.workers.len() >= limit {
            break;
        }
    }
    printer.print_list(&mut list, &table, |list| &mut list.workers);
    if !list.next_page_token.is_empty() {
        output::status("The pool has more workers; use --limit to list them");
    }
    Ok(Exit::Success)
}

fn state(pool: &v1::Pool) -> Cell {
    if pool.paused { Cell::from("paused").colored(AnsiColor::Yellow) } else { "active".into() }
}

/// The bounds of the size; empty if it does not follow the load.
fn autoscale(pool: &v1::Pool) -> String {
    pool.autoscale.map(|v1::PoolAutoscale { min, max }| format!("{min} to {max}")).unwrap_or_default()
}

/// Busy workers, and all.
pub fn busy(metrics: &v1::PoolMetrics) -> Cell {
    Cell::from(format!("{}/{}", metrics.busy, metrics.size)).ordered_by(metrics.busy)
}

fn charge(pool: &v1::Pool) -> &'static str {
    match pool.charge() {
        v1::PoolCharge::SlotTime => "slot time",
        v1::PoolCharge::Tasks | v1::PoolCharge::Unspecified => "tasks",
    }
}

/// `NAMESPACE=WEIGHT` or `NAMESPACE/KEY=WEIGHT`.
fn weight(weight: &v1::PoolWeight) -> String {
    let v1::PoolWeight { namespace, fairness_key, weight } = weight;
    if fairness_key.is_empty() {
        format!("{namespace}={weight}")
    } else {
        format!("{namespace}/{fairness_key}={weight}")
    }
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
            ("autoscale", autoscale(pool).into()),
            ("state", state(pool)),
            ("queue limit", Cell::number(pool.queue_limit)),
            ("default timeout", format::duration(pool.default_timeout.as_ref()).into()),
            ("running per namespace", limit.unwrap_or_default().into()),
            ("namespaces", pool.namespaces.join(" ").into()),
            ("charge", charge(pool).into()),
            ("max wait", format::duration(pool.max_wait.as_ref()).into()),
            ("weights", pool.weights.iter().map(weight).collect::<Vec<_>>().join(" ").into()),
            ("etag", pool.etag.as_str().into()),
        ],
    )
}
