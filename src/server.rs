//! The whole service in a program of its user, with functions of that program as handlers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::app::{self, Drain, Started};
use crate::config::{self, Config, Overrides};
use crate::function::{BoxError, FromPayload, Function, IntoPayload, Registrations, TaskContext};
use crate::telemetry::export::pipeline::Pipeline;
use crate::telemetry::{self, export::settings::environment};

/// Attempts of functions that run at a time.
const CONCURRENCY: usize = 100;

/// A running server.
///
/// ```no_run
/// use lineshaft::{BoxError, Server, TaskContext};
///
/// async fn greet(_: TaskContext, name: String) -> Result<String, BoxError> {
///     Ok(format!("Hello, {name}!"))
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), BoxError> {
///     Ok(Server::builder().data_directory("./data").handler("greet", greet).serve().await?)
/// }
/// ```
pub struct Server {
    started: Started,
    pipeline: Pipeline,
}

/// Settings of a server, and its functions.
#[must_use = "a server does nothing until it is started"]
pub struct ServerBuilder {
    config_file: Option<PathBuf>,
    overrides: Overrides,
    functions: Registrations,
    concurrency: usize,
}

/// Drains a server. Clones drain the same server.
#[derive(Clone)]
pub struct ServerHandle(Drain);

/// Why a server did not start, or has ended without a drain.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ServerError(BoxError);

impl ServerError {
    fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl Server {
    /// A server with the defaults of `lineshaft serve`: it listens on 127.0.0.1:7070 and keeps its data in `./lineshaft-data`.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            config_file: None,
            overrides: Overrides::default(),
            functions: Registrations::default(),
            concurrency: CONCURRENCY,
        }
    }

    /// The address on which it accepts connections.
    pub fn local_address(&self) -> SocketAddr {
        self.started.address()
    }

    /// Drains the server from elsewhere in the program.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(self.started.drain())
    }

    /// Waits until the server has drained.
    ///
    /// # Errors
    /// [`ServerError`] if a part of it ends unexpectedly.
    pub async fn wait(self) -> Result<(), ServerError> {
        let ended = self.started.ended().await;
        let pipeline = self.pipeline;
        // Waits for the last exports. It fails only if the runtime shuts down.
        let _ = tokio::task::spawn_blocking(|| pipeline.shutdown()).await;
        ended.map_err(ServerError::new)
    }
}

impl ServerHandle {
    /// The server starts no further tasks, and ends when those that run have ended, at most after `server.drain_limit`.
    pub fn drain(&self) {
        self.0.begin(None);
    }

    /// Like [`drain`](Self::drain) with another limit. Tasks that still run then are stopped, and run after the next start.
    pub fn drain_within(&self, limit: Duration) {
        self.0.begin(Some(limit));
    }
}

impl ServerBuilder {
    /// Reads settings from a configuration file, as `lineshaft serve --config` does. The environment is not read. Handlers
    /// with runner = "process" need `lineshaft serve`.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_file = Some(path.into());
        self
    }

    /// Listens on this address; port 0 is any free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.overrides.listen = Some(address);
        self
    }

    /// Keeps the data in this directory, which is created if it does not exist.
    pub fn data_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.overrides.data_dir = Some(path.into());
        self.overrides.memory = None;
        self
    }

    /// Keeps all data in memory, and nothing on disk.
    pub fn memory(mut self) -> Self {
        self.overrides.memory = Some(true);
        self
    }

    /// Runs the tasks of a handler with an asynchronous function; see [`Worker::handler`](crate::Worker::handler).
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

    /// Describes a handler for people.
    pub fn description(mut self, name: &str, text: &str) -> Self {
        self.functions.describe(name, text);
        self
    }

    /// Attempts of functions that run at the same time, 1 to 1,000: the size of the pool `functions`. The default is 100.
    pub fn concurrency(mut self, attempts: usize) -> Self {
        self.concurrency = attempts;
        self
    }

    /// Starts the server. It needs a multi-threaded runtime. Its log goes to `tracing`, and its telemetry where the variables
    /// `OTEL_*` say. A panic in a part that it cannot do without ends the process.
    ///
    /// # Errors
    /// [`ServerError`] if a setting is not valid, the address is in use, or the store cannot be opened.
    pub async fn start(self) -> Result<Server, ServerError> {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Err(ServerError::new("the server needs a multi-threaded runtime, such as #[tokio::main] makes"));
        }
        let config = self.config()?;
        let instance = uuid::Uuid::new_v4().to_string();
        let mut pipeline = telemetry::start_embedded(&app::telemetry_options(&config), &environment(), &instance)
            .map_err(ServerError::new)?;
        match app::start(config, self.functions.handlers, &instance, &mut pipeline).await {
            Ok(started) => Ok(Server { started, pipeline }),
            Err(error) => Err(ServerError::new(error)),
        }
    }

    /// Starts the server and waits until it has drained after SIGTERM, SIGINT or a call. A second signal stops what runs.
    ///
    /// # Errors
    /// [`ServerError`], as [`start`](Self::start) and [`Server::wait`].
    pub async fn serve(self) -> Result<(), ServerError> {
        let server = self.start().await?;
        server.started.drain_on_signals().map_err(ServerError::new)?;
        server.wait().await
    }

    fn config(&self) -> Result<Config, ServerError> {
        if let Some(problem) = self.functions.problem() {
            return Err(ServerError::new(problem));
        }
        let functions =
            self.functions.handlers.values().map(|handler| (handler.name.clone(), handler.description.clone()));
        let overrides =
            Overrides { functions: functions.collect(), function_slots: self.concurrency, ..self.overrides.clone() };
        let config = config::load(self.config_file.as_deref(), [], overrides).map_err(ServerError::new)?;
        match config.handlers.iter().find(|handler| handler.is_process()) {
            Some(handler) => {
                let text = format!("handler `{}`: runner = \"process\" needs `lineshaft serve`", handler.name);
                Err(ServerError::new(text))
            }
            None => Ok(config),
        }
    }
}
