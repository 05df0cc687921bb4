//! `lineshaft pool`.

use std::collections::HashMap;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::builder::styling::AnsiColor;
use clap::{ArgGroup, Subcommand};
use tonic::Status;

use crate::proto::v1;

use super::client::Client;
use super::error::{CommandResult, Exit};
use super::printer::Printer;
use super::reconnect::Reconnect;
use super::table::{Column, Table, TableArgs};
use super::time::{parse_duration, to_proto};
use super::view::{self, Cell, Text, View};
use super::{format, output};

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
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Resize, pause or resume a pool, or set its queue limit
    ///
    /// Changes survive restarts until the server's configuration file gives the setting a new value.
    #[command(group = ArgGroup::new("change").required(true).multiple(true).args(["size", "pause", "resume", "queue_limit"]))]
    Update {
        /// Pool name
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
    /// Live pool activity
    ///
    /// BUSY: busy workers and pool size. QUEUED: tasks by priority (critical, high, normal, low). IN and OUT: tasks
    /// submitted and finished per second. WAIT and RUN P99: 99th percentiles of the time in the queue and of the run
    /// time.
    Top {
        /// Pool names [default: all pools]
        names: Vec<String>,
        /// Refresh interval, 100ms to 1m
        #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = parse_duration)]
        interval: Duration,
        /// Print once and exit
        #[arg(long)]
        once: bool,
        /// Also show each worker
        #[arg(long)]
        workers: bool,
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
        Command::Top { names, interval, once, workers } => {
            let interval = Some(to_proto(interval));
            let request = v1::StreamPoolMetricsRequest { pools: names, interval, include_workers: workers };
            top(request, once, &client, printer).await?;
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

static COLUMNS: [Column<PoolRow>; 8] = [
    Column::new("NAME", 0, |row, _| row.pool.name.as_str().into()),
    Column::new("STATE", 0, |row, _| state(&row.pool)),
    Column::new("BUSY", 0, |row, _| busy(&row.metrics)),
    Column::new("QUEUED", 0, |row, _| Cell::number(row.metrics.queued)),
    Column::new("QUEUE LIMIT", 2, |row, _| Cell::number(row.pool.queue_limit)),
    Column::new("KIND", 1, |row, _| format::pool_kind(row.pool.kind).into()),
    Column::new("ETAG", 4, |row, _| row.pool.etag.as_str().into()),
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
fn busy(metrics: &v1::PoolMetrics) -> Cell {
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

/// Prints sample after sample, also over new connections, or one.
async fn top(
    request: v1::StreamPoolMetricsRequest,
    once: bool,
    client: &Client,
    printer: Printer,
) -> Result<(), Status> {
    let redraw = output::is_terminal() && !once && !printer.is_json();
    let mut reconnect = Reconnect::new(Duration::MAX);
    loop {
        let sampled = async {
            let mut samples = client.pools().stream_pool_metrics(request.clone()).await?.into_inner();
            while let Some(sample) = samples.message().await? {
                reconnect.answered();
                let text = |sample: &_| activity(sample, &printer.view().renewed());
                if redraw {
                    output::redraw(text(&sample));
                } else {
                    printer.print(&sample, text);
                }
                if once {
                    return Ok(());
                }
            }
            Err(Status::unavailable("the server ended the stream"))
        };
        match sampled.await {
            Ok(()) => return Ok(()),
            Err(status) => reconnect.pause(status).await?,
        }
    }
}

static ACTIVITY: [Column<v1::PoolMetrics>; 11] = [
    Column::new("POOL", 0, |pool, _| pool.pool.as_str().into()),
    Column::new("BUSY", 0, |pool, _| busy(pool)),
    Column::new("QUEUED C/H/N/L", 0, |pool, _| {
        let depths: Vec<_> = pool.priorities.iter().map(|depth| depth.queued.to_string()).collect();
        depths.join("/").into()
    }),
    Column::new("WAITING", 4, |pool, _| Cell::number(pool.waiting)),
    Column::new("COMPLETED", 2, |pool, _| Cell::number(pool.completed)),
    Column::new("FAILED", 1, |pool, _| Cell::number(pool.failed)),
    Column::new("CANCELLED", 4, |pool, _| Cell::number(pool.cancelled)),
    Column::new("IN", 2, |pool, _| format!("{:.0}/s", pool.submit_rate).into()),
    Column::new("OUT", 1, |pool, _| format!("{:.0}/s", pool.finish_rate).into()),
    Column::new("WAIT P99", 3, |pool, _| p99(pool.wait_time.as_ref())),
    Column::new("RUN P99", 3, |pool, _| p99(pool.run_time.as_ref())),
];

fn p99(times: Option<&v1::Percentiles>) -> Cell {
    Cell::duration(times.and_then(|times| times.p99.as_ref()))
}

static WORKERS: [Column<v1::Worker>; 7] = [
    Column::new("WORKER", 0, |worker, _| format!("{}/{}", worker.pool, worker.name).into()),
    Column::new("TASK", 0, |worker, _| match &worker.remote {
        Some(remote) if !remote.connected => "not connected".into(),
        Some(remote) => format!("{}/{} running", remote.running, remote.slots).into(),
        None => worker.current_task_id.as_str().into(),
    }),
    Column::text("HANDLER", 0, |worker, _| match &worker.remote {
        Some(remote) => remote.handlers.join(", ").into(),
        None => worker.current_handler.as_str().into(),
    }),
    Column::new("COMPLETED", 1, |worker, _| Cell::number(worker.completed)),
    Column::new("FAILED", 1, |worker, _| Cell::number(worker.failed)),
    Column::new("BUSY", 2, |worker, _| Cell::duration(worker.busy_time.as_ref())),
    Column::new("IDLE", 2, |worker, _| Cell::duration(worker.idle_time.as_ref())),
];

/// Tables of pools and workers, and a line about the machine.
fn activity(sample: &v1::StreamPoolMetricsResponse, view: &View) -> Text {
    let mut text = Table::plain(&ACTIVITY).text(&sample.pools, view);
    let workers: Vec<_> = sample.pools.iter().flat_map(|pool| &pool.workers).cloned().collect();
    if !workers.is_empty() {
        text = text.and(&"\n\n".into()).and(&Table::plain(&WORKERS).text(&workers, view));
    }
    let system = sample.system.unwrap_or_default();
    let machine = format!(
        "\n\nCPU {:.0}%, memory {:.0}%; server: {} MiB, {} threads",
        system.cpu_percent,
        system.memory_percent,
        system.process_memory_bytes >> 20,
        system.process_threads
    );
    text.and(&machine.into())
}
