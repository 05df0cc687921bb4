//! A remote worker: it connects to a server and runs the tasks of its functions.
//!
//! `stream` speaks the protocol, `state` has the attempts over all streams and the reports about them, and `attempt` runs
//! one attempt: a task of the runtime.

mod artifacts;
mod attempt;
mod incoming;
mod messages;
mod outbox;
mod parents;
mod state;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::client::Client;
use crate::function::{BoxError, FromPayload, Function, IntoPayload, Registrations, TaskContext};
use crate::model::{HandlerName, limits};
use state::Shared;
use stream::Connection;

/// Time for running functions to return when the worker stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that functions have to return after that, and after a second signal, before they are stopped by force.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const HASTY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the last reports.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which no attempt can arrive that the server had sent before it heard of the drain.
const LINGER_TIME: Duration = Duration::from_millis(100);

/// A program that runs tasks with its own functions.
///
/// ```no_run
/// use lineshaft::{BoxError, Client, TaskContext, Worker};
///
/// async fn greet(_: TaskContext, name: String) -> Result<String, BoxError> {
///     Ok(format!("Hello, {name}!"))
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), BoxError> {
///     let client = Client::from_env()?; // LINESHAFT_SERVER, else 127.0.0.1:7070
///     Ok(Worker::new(&client).handler("greet", greet).run().await?)
/// }
/// ```
#[must_use = "a worker does nothing until it runs"]
pub struct Worker {
    client: Client,
    functions: Registrations,
    id: String,
    pool: String,
    concurrency: usize,
    labels: BTreeMap<String, String>,
    drain_timeout: Duration,
    signals: bool,
    handle: WorkerHandle,
}

/// Stops a running worker. Clones stop the same worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerHandle {
    drain: CancellationToken,
    stop: CancellationToken,
}

/// Why a worker has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The settings of the worker are not valid.
    #[error("{0}")]
    Invalid(String),
    /// The server refuses the worker.
    #[error("the server refuses the worker: {}", .0.message())]
    Refused(Box<Status>),
    /// The worker has stopped before these attempts have ended, or before the server has stored their ends. Their tasks run
    /// elsewhere.
    #[error("the worker has stopped with {0} unfinished attempts")]
    Unfinished(usize),
    /// The program cannot receive signals.
    #[error("failed to listen for signals: {0}")]
    Signals(#[from] io::Error),
}

impl Worker {
    /// A worker that uses the connection of the client. Add functions, then [`run`](Self::run) it.
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            functions: Registrations::default(),
            id: worker_id(),
            pool: String::new(),
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            labels: BTreeMap::new(),
            drain_timeout: DRAIN_TIMEOUT,
            signals: true,
            handle: WorkerHandle::default(),
        }
    }

    /// Runs the tasks of a handler with an asynchronous function. Its argument is decoded from the JSON of the payload, and its
    /// result encoded; a [`Payload`](crate::Payload) is passed on as it is. An error or a panic fails the attempt, and the task is
    /// retried if it has attempts left, unless the error is [`permanent`](crate::permanent). A payload that cannot be decoded fails
    /// the task.
    pub fn handler<In, Out, E, F, Fut>(self, name: &str, function: F) -> Self
    where
        In: FromPayload + Send + 'static,
        Out: IntoPayload,
        E: Into<BoxError>,
        F: Fn(TaskContext, In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Out, E>> + Send + 'static,
    {
        self.add(name, Function::new(function))
    }

    /// Like [`handler`](Self::handler), for a function that computes or blocks for long. It runs on a thread for blocking code, and
    /// cannot be stopped by force.
    pub fn blocking_handler<In, Out, E, F>(self, name: &str, function: F) -> Self
    where
        In: FromPayload + Send + 'static,
        Out: IntoPayload,
        E: Into<BoxError>,
        F: Fn(TaskContext, In) -> Result<Out, E> + Send + Sync + 'static,
    {
        self.add(name, Function::blocking(function))
    }

    fn add(mut self, name: &str, function: Function) -> Self {
        self.functions.add(name, function);
        self
    }

    /// Describes a handler for people, at most 1,024 bytes. Used when the server learns its name.
    pub fn description(mut self, name: &str, text: &str) -> Self {
        self.functions.describe(name, text);
        self
    }

    /// Attempts that run at the same time, 1 to 10,000. The default is the number of processors; set more if the functions mostly
    /// wait.
    pub fn concurrency(mut self, attempts: usize) -> Self {
        self.concurrency = attempts;
        self
    }

    /// The pool in which the worker works, one of kind `remote`. The default is the first such pool.
    pub fn pool(mut self, pool: &str) -> Self {
        pool.clone_into(&mut self.pool);
        self
    }

    /// Adds a label, which is shown in the list of workers; at most 16.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Time for running functions to return when the worker stops. The default is 20 seconds. Then they are asked to stop, and have
    /// 5 more seconds.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Leaves SIGTERM and SIGINT to the program, which stops the worker with its [`handle`](Self::handle).
    pub fn without_signals(mut self) -> Self {
        self.signals = false;
        self
    }

    /// The ID of the worker, which is part of the name that the server gives it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Stops the worker from elsewhere in the program.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// Connects and runs tasks until SIGTERM, SIGINT, or [`WorkerHandle::drain`]. Then it accepts no further tasks, waits for those
    /// that run, and returns. A second signal ends the wait.
    ///
    /// While the server cannot be reached, the worker connects again and again; functions go on meanwhile.
    ///
    /// # Errors
    /// [`WorkerError`], also if attempts had not ended when the worker stopped; the server gives these to other workers.
    pub async fn run(self) -> Result<(), WorkerError> {
        self.check()?;
        let signals = if self.signals { Some(Signals::listen()?) } else { None };
        let (handle, drain_timeout, id) = (self.handle, self.drain_timeout, self.id.clone());
        let shared = Arc::<Shared>::default();
        let connection = Connection {
            client: self.client,
            shared: shared.clone(),
            handlers: self.functions.handlers,
            id: self.id,
            pool: self.pool,
            slots: self.concurrency,
            labels: self.labels,
        };
        let connected = Connected { connection: tokio::spawn(connection.keep()), shared };
        Running { connected, handle, signals, drain_timeout, id }.end().await
    }

    fn check(&self) -> Result<(), WorkerError> {
        let invalid = |text: String| Err(WorkerError::Invalid(text));
        if let Some(problem) = self.functions.problem() {
            return invalid(problem.to_owned());
        }
        for name in self.functions.handlers.keys() {
            if let Err(problem) = HandlerName::parse(name) {
                return invalid(format!("handler {name:?}: {problem}"));
            }
        }
        if self.functions.handlers.is_empty() {
            return invalid("the worker has no handlers; add one with Worker::handler".to_owned());
        }
        if !(1..=limits::WORKER_SLOTS_MAX).contains(&self.concurrency) {
            let text = format!("concurrency is {}, must be from 1 to {}", self.concurrency, limits::WORKER_SLOTS_MAX);
            return invalid(text);
        }
        Ok(())
    }
}

impl WorkerHandle {
    /// The worker accepts no further tasks, and ends when those that run have ended.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Like [`drain`](Self::drain), but running functions are asked to stop at once.
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }
}

/// The connection of a running worker. When it is dropped, all functions are dropped too.
struct Connected {
    connection: JoinHandle<Result<(), Status>>,
    shared: Arc<Shared>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connection.abort();
        self.shared.abort_all();
    }
}

impl Connected {
    /// Waits until the connection ends.
    async fn ended(&mut self) -> Result<(), WorkerError> {
        match (&mut self.connection).await {
            Ok(ended) => ended.map_err(|status| WorkerError::Refused(Box::new(status))),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down.
                Err(_) => Err(WorkerError::Unfinished(self.shared.unfinished())),
            },
        }
    }
}

struct Running {
    connected: Connected,
    handle: WorkerHandle,
    signals: Option<Signals>,
    drain_timeout: Duration,
    id: String,
}

/// How far a worker has stopped.
#[derive(PartialEq)]
enum Phase {
    /// Functions may return.
    Draining,
    /// They are asked to stop.
    Stopping,
    /// They are stopped by force.
    Aborted,
}

impl Running {
    async fn end(mut self) -> Result<(), WorkerError> {
        tokio::select! {
            ended = self.connected.ended() => return ended,
            () = self.handle.drain.cancelled() => {}
            () = received(self.signals.as_mut()) => {}
        }
        self.drain().await
    }

    async fn drain(&mut self) -> Result<(), WorkerError> {
        let shared = self.connected.shared.clone();
        let attempts = shared.drain();
        tracing::info!(worker = self.id, attempts, "the worker drains");
        let leave_at = Instant::now() + LINGER_TIME;
        let (mut phase, mut until) = (Phase::Draining, Instant::now() + self.drain_timeout);
        let mut has_left = false;
        loop {
            let hasty = self.handle.stop.cancelled();
            let timeout = tokio::select! {
                ended = self.connected.ended() => return ended,
                () = sleep_until(leave_at), if !has_left => {
                    has_left = true;
                    shared.leave();
                    continue;
                }
                () = hasty, if phase == Phase::Draining => STOP_TIMEOUT,
                () = received(self.signals.as_mut()), if phase != Phase::Aborted => HASTY_TIMEOUT,
                () = sleep_until(until) => STOP_TIMEOUT,
            };
            match phase {
                Phase::Draining => {
                    shared.stop_all();
                    (phase, until) = (Phase::Stopping, Instant::now() + timeout);
                }
                Phase::Stopping => {
                    let count = shared.abort_all();
                    tracing::warn!(worker = self.id, attempts = count, "functions did not return in time");
                    (phase, until) = (Phase::Aborted, Instant::now() + CLOSE_TIMEOUT.min(timeout));
                }
                Phase::Aborted => return Err(WorkerError::Unfinished(shared.unfinished())),
            }
        }
    }
}

/// Signals that stop the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Waits for a signal.
async fn received(signals: Option<&mut Signals>) {
    let Some(signals) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
    }
}

/// An ID that no other running program has.
fn worker_id() -> String {
    let host = sysinfo::System::host_name().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let host: String = host.chars().take(32).map(plain).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}-{}", if host.is_empty() { "rust" } else { &host }, std::process::id(), &random[..6])
}
