//! Scenario `process`: processes run by the server, compared with direct spawning.

use std::process::Stdio;

use tokio::process::Command;
use tonic::Status;

use super::end_to_end::BatchLoad;
use super::load::{Window, closed_loop};
use super::report::{Report, Row};
use super::server::{self, PROCESS_WORKERS, Server};
use super::settings::Settings;
use crate::cli::server_process::Result;

/// Runs `/bin/true`, eight at a time: spawned directly, by the server, and directly again.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let before = spawn_rate(settings).await?;
    let server = Server::start(settings).await?;
    let load = BatchLoad { task: server::process_task(), batch: 50, backlog: 1_000, namespaces: 1 };
    let rate = load.run(settings, &server).await?.burst;
    drop(server);
    let after = spawn_rate(settings).await?;
    let baseline = f64::midpoint(before, after);
    let what = format!("/bin/true, {PROCESS_WORKERS} workers");
    let row = Row::new("process", &what, rate, "/s");
    report.add(row.baseline(baseline, "direct spawning").ratio_at_least(0.9));
    Ok(())
}

/// Processes per second without a server.
async fn spawn_rate(settings: &Settings) -> Result<f64> {
    let window = Window::after_warm_up(settings.duration / 2);
    let caller = || {
        || async {
            let spawned = Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            let exited = async { spawned?.wait().await }.await;
            exited.map(|_| 1).map_err(|error| Status::internal(error.to_string()))
        }
    };
    let callers = (0..PROCESS_WORKERS).map(|_| caller()).collect();
    let samples = closed_loop(window, u64::MAX, callers).await?;
    Ok(window.rate(samples.count))
}
