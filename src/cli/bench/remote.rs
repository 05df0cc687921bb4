//! Scenario `remote`: no-op tasks in a remote worker of the Rust library, which has one connection.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::end_to_end::{BatchLoad, no_op_load};
use super::latency::{RoundTrips, submit_one_at_a_time};
use super::report::{Report, Row};
use super::server::Server;
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
    let task = SubmitTaskRequest { handler: HANDLER.to_owned(), ..SubmitTaskRequest::default() };
    let load = BatchLoad { task: task.clone(), ..no_op_load() };
    let (mut single, mut many) = (RoundTrips::default(), Vec::new());
    for _ in 0..settings.rounds {
        single.add_baseline(settings).await?;
        let server = Server::start(settings).await?;
        let worker = ConnectedWorker::start(&server).await?;
        single.tasks.push(submit_one_at_a_time(settings, &server, &task).await?);
        many.push(load.run(settings, &server).await?.burst);
        worker.stop().await?;
    }
    report.add(single.row("remote", "one task at a time", "p50", 0.5).ratio_at_most(ROUND_TRIPS_MAX));
    report.add(single.row("remote", "one task at a time", "p99", 0.99));
    let what = format!("no-op tasks, {CONCURRENCY} at a time on one connection: burst");
    report.add(Row::of_rounds("remote", &what, many, "tasks/s").at_least(100_000.0));
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
