//! Processes through the server against bare spawning, in turns.

use std::process::Stdio;

use tokio::process::Command;
use tonic::Status;

use super::Plan;
use super::end_to_end::Flow;
use super::load::{Window, closed_loop};
use super::report::{Report, Row};
use super::server::{self, PROCESS_WORKERS, Server};
use crate::cli::server_process::Result;

/// `/bin/true`, eight at a time: bare, through the server, and bare again.
pub async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let before = bare(plan).await?;
    let server = Server::start(plan).await?;
    let flow = Flow { task: server::process(), batch: 50, backlog: 1_000 };
    let rate = flow.run(plan, &server).await?;
    drop(server);
    let after = bare(plan).await?;
    let bare = f64::midpoint(before, after);
    let what = format!("/bin/true, {PROCESS_WORKERS} workers");
    report.add(Row::new("process", &what, rate, "/s").at_least(0.9 * bare).ceiling(bare, "bare spawning"));
    Ok(())
}

async fn bare(plan: &Plan) -> Result<f64> {
    let window = Window::soon(plan.span / 2);
    let slot = || {
        || async {
            let spawned = Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            let ended = async { spawned?.wait().await }.await;
            ended.map(|_| 1).map_err(|error| Status::internal(error.to_string()))
        }
    };
    let slots = (0..PROCESS_WORKERS).map(|_| slot()).collect();
    let tally = closed_loop(window, slots).await?;
    Ok(window.rate(tally.count))
}
