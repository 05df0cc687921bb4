//! `lineshaft pool`.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Subcommand};
use tonic::Status;

use crate::proto::v1;

use super::client::Client;
use super::error::{CommandResult, Exit};
use super::format::{self, Printer};
use super::output;
use super::reconnect::Reconnect;
use super::time::to_proto;

/// Moves the cursor to the top left and clears the terminal below it.
const CLEAR_SCREEN: &[u8] = b"\x1b[H\x1b[J";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List pools
    List,
    /// Show one pool
    Get {
        /// Pool name
        name: String,
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
        #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
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
        Command::List => {
            let response = client.pools().list_pools(v1::ListPoolsRequest {}).await?.into_inner();
            printer.print(&response, |response| pool_table(&response.pools));
        }
        Command::Get { name } => {
            let response = client.pools().get_pool(v1::GetPoolRequest { name }).await?.into_inner();
            printer.print(&response.pool.unwrap_or_default(), |pool| pool_table(std::slice::from_ref(pool)));
        }
        Command::Update { name, size, pause, resume, queue_limit, etag } => {
            let paused = (pause || resume).then_some(pause);
            let etag = etag.unwrap_or_default();
            let request = v1::UpdatePoolRequest { name, size, paused, queue_limit, etag };
            let response = client.pools().update_pool(request).await?.into_inner();
            printer.print(&response.pool.unwrap_or_default(), |pool| pool_table(std::slice::from_ref(pool)));
        }
        Command::Top { names, interval, once, workers } => {
            let interval = Some(to_proto(interval));
            let request = v1::StreamPoolMetricsRequest { pools: names, interval, include_workers: workers };
            top(request, once, &client, printer).await?;
        }
    }
    Ok(Exit::Success)
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
                if redraw {
                    output::stdout_bytes(CLEAR_SCREEN);
                }
                printer.print(&sample, activity);
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

fn pool_table(pools: &[v1::Pool]) -> String {
    let row = |pool: &v1::Pool| {
        [
            pool.name.clone(),
            format::pool_kind(pool.kind),
            pool.size.to_string(),
            if pool.paused { "paused" } else { "active" }.to_owned(),
            pool.queue_limit.to_string(),
            pool.etag.clone(),
            pool.description.clone(),
        ]
    };
    let rows: Vec<_> = pools.iter().map(row).collect();
    format::table(["NAME", "KIND", "SIZE", "STATE", "QUEUE LIMIT", "ETAG", "DESCRIPTION"], &rows)
}

/// Tables of pools and workers, and a line about the machine.
fn activity(sample: &v1::StreamPoolMetricsResponse) -> String {
    let headings = [
        "POOL",
        "BUSY",
        "QUEUED C/H/N/L",
        "WAITING",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "IN",
        "OUT",
        "WAIT P99",
        "RUN P99",
    ];
    let pools: Vec<_> = sample.pools.iter().map(pool_row).collect();
    let mut text = format::table(headings, &pools);
    let workers: Vec<_> = sample.pools.iter().flat_map(|pool| &pool.workers).map(worker_row).collect();
    if !workers.is_empty() {
        let headings = ["WORKER", "TASK", "HANDLER", "COMPLETED", "FAILED", "BUSY", "IDLE"];
        text = format!("{text}\n\n{}", format::table(headings, &workers));
    }
    let system = sample.system.unwrap_or_default();
    format!(
        "{text}\n\nCPU {:.0}%, memory {:.0}%; server: {} MiB, {} threads",
        system.cpu_percent,
        system.memory_percent,
        system.process_memory_bytes >> 20,
        system.process_threads
    )
}

fn pool_row(pool: &v1::PoolMetrics) -> [String; 11] {
    let depths: Vec<_> = pool.priorities.iter().map(|depth| depth.queued.to_string()).collect();
    let p99 = |times: &Option<v1::Percentiles>| {
        times.as_ref().map(|times| format::duration(times.p99.as_ref())).unwrap_or_default()
    };
    [
        pool.pool.clone(),
        format!("{}/{}", pool.busy, pool.size),
        depths.join("/"),
        pool.waiting.to_string(),
        pool.completed.to_string(),
        pool.failed.to_string(),
        pool.cancelled.to_string(),
        format!("{:.0}/s", pool.submit_rate),
        format!("{:.0}/s", pool.finish_rate),
        p99(&pool.wait_time),
        p99(&pool.run_time),
    ]
}

fn worker_row(worker: &v1::Worker) -> [String; 7] {
    let (task, handler) = match &worker.remote {
        Some(remote) if !remote.connected => ("not connected".to_owned(), remote.handlers.join(", ")),
        Some(remote) => (format!("{}/{} running", remote.running, remote.slots), remote.handlers.join(", ")),
        None => (worker.current_task_id.clone(), worker.current_handler.clone()),
    };
    [
        format!("{}/{}", worker.pool, worker.name),
        task,
        handler,
        worker.completed.to_string(),
        worker.failed.to_string(),
        format::duration(worker.busy_time.as_ref()),
        format::duration(worker.idle_time.as_ref()),
    ]
}
