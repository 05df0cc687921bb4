//! What this machine allows: the bare durable append, and submission to a service that does nothing else.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use super::Plan;
use super::load::{self, Tally};
use super::minimal_server::MinimalServer;
use super::report::{Report, Row};
use super::server::Tasks;
use crate::cli::server_process::{Result, ScratchDir};

/// Bytes of one bare append.
const APPEND_BYTES: usize = 4_096;

/// Appends of 4 KiB, each made durable before the next, on the disk of the stores.
pub fn bare_append(plan: &Plan, report: &mut Report) -> Result<()> {
    let scratch = ScratchDir::new(&plan.directory, false)?;
    let mut file = File::create(scratch.path().join("appends"))?;
    let block = [7; APPEND_BYTES];
    let mut tally = Tally::new();
    let span = plan.span.min(Duration::from_secs(2));
    let began = Instant::now();
    while began.elapsed() < span {
        let before = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        tally.add(1, before.elapsed());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = tally.count as f64 / began.elapsed().as_secs_f64();
    report.add(Row::new("bare-append", "4 KiB + fdatasync, one at a time", rate, "/s"));
    report.add(Row::new("bare-append", "p50", load::millis(&tally.latency, 0.5), "ms"));
    report.add(Row::new("bare-append", "p99", load::millis(&tally.latency, 0.99), "ms"));
    Ok(())
}

/// The same load against the bare service that answers after a group commit, and against the one that
/// answers at once.
pub struct Bare<T> {
    /// Behind a bare group commit.
    pub durable: T,
    /// Answered at once.
    pub at_once: T,
}

/// Measures a load against both bare services, each on `connections` connections.
pub async fn bare<T, F, Fut>(plan: &Plan, connections: usize, load: F) -> Result<Bare<T>>
where
    F: Fn(Vec<Tasks>) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let scratch = ScratchDir::new(&plan.directory, false)?;
    let echo = MinimalServer::start(Some(scratch.path()))?;
    let durable = load(clients(&echo, connections).await?).await?;
    drop(echo);
    let echo = MinimalServer::start(None)?;
    let at_once = load(clients(&echo, connections).await?).await?;
    Ok(Bare { durable, at_once })
}

async fn clients(echo: &MinimalServer, connections: usize) -> Result<Vec<Tasks>> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(echo.tasks().await?);
    }
    Ok(clients)
}
