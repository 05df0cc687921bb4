//! Resident memory of the server for each queued task and for each idle worker.

use std::time::{Duration, Instant};

use super::Plan;
use super::report::{Report, Row};
use super::server::{self, PAYLOAD_BYTES, Server, config};
use crate::cli::server_process::{Result, ServerProcess};

/// Tasks before the first reading: they fill what is allocated once, such as the recent events for watchers.
const WARM_UP_TASKS: usize = 70_000;
/// Memory is settled when it has not changed by more than this between two readings.
const STEADY_BYTES: u64 = 256 * 1024;
/// Between two readings; longer than the projection's pause between transactions.
const READING_EVERY: Duration = Duration::from_secs(1);
/// Readings stop being compared after this.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
/// Workers of the large pool.
const WORKERS: usize = 1_000;

/// Queued tasks, then idle workers.
pub async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let count = if plan.quick { 100_000 } else { 500_000 };
    let server = Server::start(plan).await?;
    let mut client = server.tasks().await?;
    server::queue(&mut client, &server::parked(), WARM_UP_TASKS).await?;
    let before = settled(&server.child).await?;
    server::queue(&mut client, &server::parked(), count).await?;
    let after = settled(&server.child).await?;
    drop(server);
    let what = format!("{count} queued tasks of {PAYLOAD_BYTES} bytes, each");
    let each = per(before, after, count);
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let target = 295.0 + PAYLOAD_BYTES as f64;
    report.add(Row::new("memory", &what, each, "bytes").at_most(target));

    let few = idle(plan, 1).await?;
    let many = idle(plan, WORKERS).await?;
    let each = per(few, many, WORKERS - 1) / 1_000.0;
    report.add(Row::new("memory", &format!("{WORKERS} idle worker threads, each"), each, "kB").at_most(100.0));
    Ok(())
}

async fn idle(plan: &Plan, workers: usize) -> Result<u64> {
    let server = Server::with(plan, &config(true, Some(workers))).await?;
    settled(&server.child).await
}

#[expect(clippy::cast_precision_loss, reason = "memory and counts are far below 2^52")]
fn per(before: u64, after: u64, count: usize) -> f64 {
    (after as f64 - before as f64) / count as f64
}

/// The resident memory once it has stopped moving: the store may still be writing.
async fn settled(child: &ServerProcess) -> Result<u64> {
    let began = Instant::now();
    let mut last = child.resident_bytes()?;
    loop {
        // There is no event for this: the system tells the memory only when asked.
        tokio::time::sleep(READING_EVERY).await;
        let now = child.resident_bytes()?;
        if now.abs_diff(last) <= STEADY_BYTES || began.elapsed() > SETTLE_WITHIN {
            return Ok(now);
        }
        last = now;
    }
}
