//! The activity of the pools as text or JSON: once, or at each interval.

use std::time::Duration;

use clap::builder::styling::AnsiColor;
use tonic::Status;

use crate::cli::client::Client;
use crate::cli::pool::busy;
use crate::cli::printer::Printer;
use crate::cli::reconnect::Reconnect;
use crate::cli::table::{Column, Table};
use crate::cli::view::{Cell, Text, View};
use crate::proto::v1;

/// Prints sample after sample, also over new connections, or one.
pub async fn run(
    request: v1::StreamPoolMetricsRequest,
    once: bool,
    client: &Client,
    printer: Printer,
) -> Result<(), Status> {
    let mut reconnect = Reconnect::new(Duration::MAX);
    loop {
        let sampled = async {
            let mut samples = client.pools().stream_pool_metrics(request.clone()).await?.into_inner();
            let mut is_first = true;
            while let Some(sample) = samples.message().await? {
                reconnect.answered();
                // The first sample of a stream has no rates.
                if !(once && is_first) {
                    printer.print(&sample, |sample| activity(sample, &printer.view().renewed()));
                }
                if once && !is_first {
                    return Ok(());
                }
                is_first = false;
            }
            Err(Status::unavailable("the server ended the stream"))
        };
        match sampled.await {
            Ok(()) => return Ok(()),
            Err(status) => reconnect.pause(status).await?,
        }
    }
}

pub static POOLS: [Column<v1::PoolMetrics>; 12] = [
    Column::new("POOL", 0, |pool, _| pool.pool.as_str().into()),
    Column::new("STATE", 0, |pool, _| {
        if pool.paused { Cell::from("paused").colored(AnsiColor::Yellow) } else { "active".into() }
    }),
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

pub static WORKERS: [Column<v1::Worker>; 7] = [
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
    let mut text = Table::plain(&POOLS).text(&sample.pools, view);
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
