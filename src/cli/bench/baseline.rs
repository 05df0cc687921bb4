//! Baselines: what this machine allows without Lineshaft.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use super::load::Samples;
use super::minimal_server::MinimalServer;
use super::report::{Report, Row};
use super::server::TaskClient;
use super::settings::Settings;
use crate::cli::server_process::{Result, ScratchDir};

const APPEND_BYTES: usize = 4_096;
const APPEND_DURATION_MAX: Duration = Duration::from_secs(2);

/// Appends 4 KiB at a time to a file on the disk of the stores, each made durable before the next.
pub fn append(settings: &Settings, report: &mut Report) -> Result<()> {
    let scratch = ScratchDir::new(&settings.directory, false)?;
    let mut file = File::create(scratch.path().join("appends"))?;
    let block = [7; APPEND_BYTES];
    let mut samples = Samples::new();
    let duration = settings.duration.min(APPEND_DURATION_MAX);
    let started = Instant::now();
    while started.elapsed() < duration {
        let before = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        samples.record(1, before.elapsed());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = samples.count as f64 / started.elapsed().as_secs_f64();
    report.add(Row::new("bare-append", "4 KiB + fdatasync, one at a time", rate, "/s"));
    report.add(Row::new("bare-append", "p50", samples.millis(0.5), "ms"));
    report.add(Row::new("bare-append", "p99", samples.millis(0.99), "ms"));
    Ok(())
}

/// Measures a load against the minimal server, with `connections` connections.
pub async fn group_commit<T, Fut>(
    settings: &Settings,
    connections: usize,
    load: impl FnOnce(Vec<TaskClient>) -> Fut,
) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let scratch = ScratchDir::new(&settings.directory, false)?;
    let server = MinimalServer::start(scratch.path())?;
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(server.client().await?);
    }
    load(clients).await
}
