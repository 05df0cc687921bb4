//! `lineshaft pool …`.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Subcommand;

use crate::proto::v1;

use super::Done;
use super::connect::{Client, Exit};
use super::say;
use super::show::{self, Output};
use super::submit::wire;

/// What can be done with pools.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List pools.
    List,
    /// Show one pool.
    Get {
        /// Its name.
        name: String,
    },
    /// Resize, pause, resume or bound a pool; kept over restarts until the configuration changes it.
    Update {
        /// Its name.
        name: String,
        /// Workers, 1 to 1,000.
        #[arg(long)]
        size: Option<i32>,
        /// Start nothing.
        #[arg(long, conflicts_with = "resume")]
        pause: bool,
        /// Start tasks again.
        #[arg(long)]
        resume: bool,
        /// Tasks that may wait.
        #[arg(long)]
        queue_limit: Option<i64>,
        /// Refuse unless the pool still has this etag.
        #[arg(long, default_value = "", hide_default_value = true)]
        etag: String,
    },
    /// Show live how pools do.
    Top {
        /// Their names; none: all.
        names: Vec<String>,
        /// Time between readings, 100ms to 1m.
        #[arg(long, default_value = "1s", value_name = "SPAN", value_parser = humantime::parse_duration)]
        interval: Duration,
        /// One reading, and no more.
        #[arg(long)]
        once: bool,
        /// A row per worker.
        #[arg(long)]
        workers: bool,
    },
}

pub async fn run(command: Command, client: Client, out: Output) -> Done {
    match command {
        Command::List => {
            let answer = client.pools().list_pools(v1::ListPoolsRequest {}).await?.into_inner();
            out.one(&answer, |answer| pools(&answer.pools));
        }
        Command::Get { name } => {
            let answer = client.pools().get_pool(v1::GetPoolRequest { name }).await?.into_inner();
            out.one(&answer.pool.unwrap_or_default(), |pool| pools(std::slice::from_ref(pool)));
        }
        Command::Update { name, size, pause, resume, queue_limit, etag } => {
            let paused = (pause || resume).then_some(pause);
            let request = v1::UpdatePoolRequest { name, size, paused, queue_limit, etag };
            let answer = client.pools().update_pool(request).await?.into_inner();
            out.one(&answer.pool.unwrap_or_default(), |pool| pools(std::slice::from_ref(pool)));
        }
        Command::Top { names, interval, once, workers } => {
            let request =
                v1::StreamPoolMetricsRequest { pools: names, interval: Some(wire(interval)), include_workers: workers };
            let mut readings = client.pools().stream_pool_metrics(request).await?.into_inner();
            let redraw = io::stdout().is_terminal() && !once && !out.is_json();
            while let Some(reading) = readings.message().await? {
                if redraw {
                    // Home, and clear what is below.
                    say::bytes(b"\x1b[H\x1b[J");
                }
                out.one(&reading, top);
                if once {
                    break;
                }
            }
        }
    }
    Ok(Exit::Ok)
}

fn pools(pools: &[v1::Pool]) -> String {
    let row = |pool: &v1::Pool| {
        let kind = v1::PoolKind::try_from(pool.kind).map_or("UNKNOWN", |kind| kind.as_str_name());
        [
            pool.name.clone(),
            kind.trim_start_matches("POOL_KIND_").to_owned(),
            pool.size.to_string(),
            if pool.paused { "paused" } else { "runs" }.to_owned(),
            pool.queue_limit.to_string(),
            pool.etag.clone(),
            pool.description.clone(),
        ]
    };
    let rows: Vec<_> = pools.iter().map(row).collect();
    show::table(["NAME", "KIND", "SIZE", "STATE", "QUEUE LIMIT", "ETAG", "DESCRIPTION"], &rows)
}

fn top(reading: &v1::StreamPoolMetricsResponse) -> String {
    let row = |pool: &v1::PoolMetrics| {
        let depths: Vec<_> = pool.priorities.iter().map(|depth| depth.queued.to_string()).collect();
        let p99 = |times: &Option<v1::Percentiles>| {
            times.as_ref().map(|times| show::span(times.p99.as_ref())).unwrap_or_default()
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
            pool.steals.to_string(),
        ]
    };
    let rows: Vec<_> = reading.pools.iter().map(row).collect();
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
        "STEALS",
    ];
    let mut text = show::table(headings, &rows);
    let workers: Vec<_> = reading.pools.iter().flat_map(|pool| &pool.workers).map(worker_row).collect();
    if !workers.is_empty() {
        let headings = ["WORKER", "QUEUE", "TASK", "HANDLER", "COMPLETED", "FAILED", "BUSY", "IDLE", "STEALS"];
        text = format!("{text}\n\n{}", show::table(headings, &workers));
    }
    let system = reading.system.unwrap_or_default();
    format!(
        "{text}\n\ncpu {:.0} %, memory {:.0} %, server {} MiB in {} threads",
        system.cpu_percent,
        system.memory_percent,
        system.process_memory_bytes >> 20,
        system.process_threads
    )
}

fn worker_row(worker: &v1::Worker) -> [String; 9] {
    [
        format!("{}/{}", worker.pool, worker.name),
        worker.queue_size.to_string(),
        worker.current_task_id.clone(),
        worker.current_handler.clone(),
        worker.completed.to_string(),
        worker.failed.to_string(),
        show::span(worker.busy_time.as_ref()),
        show::span(worker.idle_time.as_ref()),
        worker.steals.to_string(),
    ]
}
