//! Scenario `remote`: no-op tasks in a remote worker of the Rust library, which has one connection.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::end_to_end::{BACKLOG, BatchLoad};
use super::latency::{durable_round_trips, submit_one_at_a_time};
use super::report::{Report, Row};
use super::server::{BATCH, Server};
use super::settings::Settings;
use crate::cli::server_process::Result;
use crate::client::Client;
use crate::function::{BoxError, Payload};
use crate::proto::v1::{GetHandlerRequest, SubmitTaskRequest};
use crate::worker::{Worker, WorkerError, WorkerHandle};

const HANDLER: &str = "no-op";
/// Attempts that the worker runs at a time.
const CONCURRENCY: usize = 5_000;
/// Most durable round trips of a task, submission and completion.
const ROUND_TRIPS_MAX: f64 = 2.5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Measures one task at a time, and many at once.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let server = Server::start(settings).await?;
    let worker = ConnectedWorker::start(&server).await?;
    let task = SubmitTaskRequest { handler: HANDLER.to_owned(), ..SubmitTaskRequest::default() };
    let single = submit_one_at_a_time(settings, &server, &task).await?;
    let load = BatchLoad { task, batch: BATCH, backlog: BACKLOG };
    let rate = load.run(settings, &server).await?.rate;
    worker.stop().await?;
    drop(server);
    let baseline = durable_round_trips(settings).await?.millis(0.5);
    report.add(
        Row::new("remote", "one task at a time, p50", single.millis(0.5), "ms")
            .at_most(ROUND_TRIPS_MAX * baseline)
            .baseline(baseline, "one durable round trip"),
    );
    report.add(Row::new("remote", "one task at a time, p99", single.millis(0.99), "ms").lower_is_better());
    let what = format!("no-op tasks, {CONCURRENCY} at a time on one connection");
    report.add(Row::new("remote", &what, rate, "tasks/s").at_least(100_000.0));
    Ok(())
}

struct ConnectedWorker {
    handle: WorkerHandle,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl ConnectedWorker {
    /// Starts the worker and waits until the server knows its handler.
    async fn start(server: &Server) -> Result<Self> {
        let client = Client::new(server.process.address())?;
        let worker = Worker::new(&client)
            .handler(HANDLER, async |_, payload: Payload| Ok::<_, BoxError>(payload))
            .concurrency(CONCURRENCY)
            .without_signals();
        let connected = Self { handle: worker.handle(), ended: tokio::spawn(worker.run()) };
        let started = Instant::now();
        let request = GetHandlerRequest { name: HANDLER.to_owned() };
        while let Err(status) = client.handlers().get_handler(request.clone()).await {
            if started.elapsed() > CONNECT_TIMEOUT {
                return Err(status.into());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(connected)
    }

    async fn stop(self) -> Result<()> {
        self.handle.drain();
        Ok(self.ended.await??)
    }
}
