//! Scenario `memory`: resident memory of the server per queued task and per idle worker.

use std::time::{Duration, Instant};

use super::report::{Report, Row};
use super::server::{self, PAYLOAD_BYTES, Server, config};
use super::settings::Settings;
use crate::cli::server_process::{Result, ServerProcess};

/// Tasks before the first reading. They fill what is allocated once, such as the buffer of recent events.
const WARM_UP_TASKS: usize = 70_000;
/// Memory is stable if two readings differ by at most this.
const STABLE_BYTES: u64 = 256 * 1024;
/// Longer than the projection's pause between transactions.
const READING_INTERVAL: Duration = Duration::from_secs(3);
/// Time after which the last reading is used even if memory is not stable.
const STABLE_TIMEOUT: Duration = Duration::from_secs(30);
const WORKERS: usize = 1_000;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let count = if settings.quick { 100_000 } else { 500_000 };
    let server = Server::start(settings).await?;
    let mut client = server.client().await?;
    server::submit_many(&mut client, &server::queued_task(), WARM_UP_TASKS).await?;
    let before = stable_memory(&server.process).await?;
    server::submit_many(&mut client, &server::queued_task(), count).await?;
    let after = stable_memory(&server.process).await?;
    drop(server);
    let what = format!("per queued task, payload {PAYLOAD_BYTES} bytes ({count} tasks)");
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let target = 295.0 + PAYLOAD_BYTES as f64;
    report.add(Row::new("memory", &what, difference_per(before, after, count), "bytes").at_most(target));

    let few = idle_memory(settings, 1).await?;
    let many = idle_memory(settings, WORKERS).await?;
    let kilobytes = difference_per(few, many, WORKERS - 1) / 1_000.0;
    report.add(Row::new("memory", &format!("per idle worker ({WORKERS} threads)"), kilobytes, "kB").at_most(100.0));
    Ok(())
}

async fn idle_memory(settings: &Settings, workers: usize) -> Result<u64> {
    let server = Server::start_with_config(settings, &config(true, Some(workers))).await?;
    stable_memory(&server.process).await
}

#[expect(clippy::cast_precision_loss, reason = "memory and counts are far below 2^52")]
fn difference_per(before: u64, after: u64, count: usize) -> f64 {
    (after as f64 - before as f64) / count as f64
}

/// Waits until the resident memory is stable: the store may still be writing.
async fn stable_memory(process: &ServerProcess) -> Result<u64> {
    let started = Instant::now();
    let mut last = process.resident_bytes()?;
    loop {
        tokio::time::sleep(READING_INTERVAL).await;
        let now = process.resident_bytes()?;
        if now.abs_diff(last) <= STABLE_BYTES || started.elapsed() > STABLE_TIMEOUT {
            return Ok(now);
        }
        last = now;
    }
}
