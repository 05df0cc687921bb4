//! The composition root: builds the parts in order, and stops them in reverse.
//!
//! Supervisor → store → scheduler and pools → edge. A drain, asked for by a signal or over the API,
//! ends the scheduler; then the edge, the processes and the store follow.

mod admin_ports;
pub mod doctor;
mod security;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::{self, Builtin, Config, Launch};
use crate::model::{PoolName, SystemClock};
use crate::runners::builtin::{Compute, Expression, Heavy, Io};
use crate::runners::process::{self, Host, ProcessOptions, ProcessRunner, ResultSource, Supervisor};
use crate::runners::{Registry, Runner};
use crate::scheduler::{self, CoreOptions, Handle};
use crate::store::{self, StoreError};
use crate::telemetry::export::{Exporters, TransportError};
use crate::telemetry::host::HostSampler;
use crate::telemetry::liveness::{Phase, Watchdog};
use crate::telemetry::{Telemetry, metrics};

/// Time that calls under way get once everything else has stopped.
const EDGE_GRACE: Duration = Duration::from_secs(2);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("failed to open the store: {0}")]
    Store(#[from] StoreError),
    /// A certificate, a key or a file of tokens cannot be used.
    #[error(transparent)]
    Security(#[from] api::SecurityError),
    /// The address cannot be listened on.
    #[error("failed to listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// The address for probes cannot be listened on.
    #[error("failed to listen on {address}: {source}; choose another `server.health_listen`")]
    ListenForProbes {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// The address for Prometheus cannot be listened on.
    #[error(
        "failed to listen on {address} for Prometheus: {source}; choose another host or port \
         (OTEL_EXPORTER_PROMETHEUS_HOST, OTEL_EXPORTER_PROMETHEUS_PORT, or the file OTEL_CONFIG_FILE)"
    )]
    ListenForScrapes {
        /// Host and port, or the address.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// Metrics cannot be exported.
    #[error(transparent)]
    Export(#[from] TransportError),
    /// A process handler cannot be used.
    #[error("handler `{handler}`: {source}")]
    Handler {
        /// Its name.
        handler: String,
        /// What is wrong.
        source: process::OptionsError,
    },
    /// Something else that the system refuses.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

fn failed_to(action: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { action, source }
}

/// Serves until a drain is over.
///
/// `ready_file`, when given, gets the address once connections are accepted. `instance` names this run
/// of the server, also to those whom `exporters` tell about it.
///
/// # Errors
/// [`StartError`]; once the server runs it only ends by a drain.
pub async fn serve(
    config: Config,
    ready_file: Option<PathBuf>,
    instance: &str,
    exporters: &mut Exporters,
) -> Result<(), StartError> {
    let guards = security::open(&config)?;
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|source| StartError::Listen { address: listen, source })?;
    let address = listener.local_addr().map_err(failed_to("learn the address"))?;

    let telemetry = telemetry(&config, exporters)?;
    let watchdog = watchdog(&config, &telemetry).map_err(failed_to("start the watchdog"))?;
    let edge_options = edge_options(&config, instance.to_owned(), &telemetry);
    let admin_stop = CancellationToken::new();
    let later = Arc::new(OnceLock::new());
    let prometheus = exporters.settings().prometheus.clone();
    let mut admin_tasks =
        admin_ports::spawn(&config, prometheus, edge_options.clone(), later.clone(), &admin_stop).await?;
    let state = StateDirectory::new(&config)?;
    let options = store::Options { directory: state.of_store.clone(), accept_loss: false };
    let (store, recovery) = store::open(&options)?;
    for note in &recovery.notes {
        tracing::warn!("{note}");
    }
    let host = Arc::new(state.host(&config, instance)?);
    let registry = Arc::new(registry(&config, &host)?);
    let clock = Arc::new(SystemClock);
    let runtime = tokio::runtime::Handle::current();
    let options = scheduler_options(&config, &telemetry);
    let service = scheduler::Service::start(options, store, recovery, registry, clock, &runtime);
    let service = service.map_err(failed_to("start the pools"))?;
    let handle = service.handle();
    let (scheduler::RecoveryCounts { tasks, unfinished }, revision) = (service.recovery_counts(), handle.revision());
    // Set once, here.
    let _ = later.set(handle.clone());
    let scheduler = spawn_scheduler(service, runtime)?;

    let edge_stop = CancellationToken::new();
    let edge = tokio::spawn(api::serve(listener, edge_options, guards, handle.clone(), edge_stop.clone()));
    telemetry.liveness.enter(Phase::Serving);
    spawn_signals(handle.clone()).map_err(failed_to("listen for signals"))?;
    if let Some(path) = &ready_file {
        announce(path, address).map_err(failed_to("write the ready file"))?;
    }
    tracing::info!(%address, store = handle.store_kind(), tasks, unfinished, %revision, "serving");

    // The sender is dropped when the scheduler's thread ends, however it ends.
    let _ = scheduler.await;
    edge_stop.cancel();
    if tokio::time::timeout(EDGE_GRACE, edge).await.is_err() {
        tracing::warn!("connections were still open and have been cut");
    }
    stop_processes(host);
    admin_stop.cancel();
    // They end at once; a panic has been printed by its hook.
    while admin_tasks.join_next().await.is_some() {}
    drop((handle, later, watchdog));
    tracing::info!("stopped");
    Ok(())
}

/// Where the server keeps what it must.
struct StateDirectory {
    of_store: Option<PathBuf>,
    path: PathBuf,
    /// Removed at the end, when nothing is to be kept.
    _temporary: Option<Temporary>,
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed is in the system's temporary directory, which is cleaned.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl StateDirectory {
    fn new(config: &Config) -> Result<Self, StartError> {
        if !config.store.memory {
            let path = config.store.directory.clone();
            return Ok(Self { of_store: Some(path.clone()), path, _temporary: None });
        }
        let path = std::env::temp_dir().join(format!("lineshaft-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).map_err(failed_to("create a temporary directory"))?;
        Ok(Self { of_store: None, path: path.clone(), _temporary: Some(Temporary(path)) })
    }

    /// Processes get a supervisor only where a handler starts some.
    fn host(&self, config: &Config, instance: &str) -> Result<Host, StartError> {
        let starts_some = config.handlers.iter().any(|handler| matches!(handler.launch(), Some(Launch::Process(_))));
        let supervisor = if starts_some {
            let exe = std::env::current_exe().map_err(failed_to("find the server's own binary"))?;
            let lock = self.path.join("runs.lock");
            Some(Supervisor::start(&exe, instance, &lock).map_err(failed_to("start the supervisor"))?)
        } else {
            None
        };
        Host::new(&self.path, instance, supervisor).map_err(failed_to("prepare the working directory"))
    }
}

fn registry(config: &Config, host: &Arc<Host>) -> Result<Registry, StartError> {
    let catalog = config.catalog();
    let mut registry = Registry::default();
    for handler in &config.handlers {
        let spec = catalog.handlers.values().find(|spec| spec.name.as_str() == handler.name);
        let (Some(spec), Some(launch)) = (spec, handler.launch()) else { continue };
        let runner: Arc<dyn Runner> = match launch {
            Launch::Builtin(Builtin::Compute) => Arc::new(Compute),
            Launch::Builtin(Builtin::Io) => Arc::new(Io),
            Launch::Builtin(Builtin::Expression) => Arc::new(Expression::default()),
            Launch::Builtin(Builtin::Heavy) => Arc::new(Heavy),
            Launch::Process(process) => {
                let made = ProcessRunner::new(process_options(process, handler), host.clone());
                Arc::new(made.map_err(|source| StartError::Handler { handler: handler.name.clone(), source })?)
            }
        };
        registry.register(spec.clone(), runner);
    }
    Ok(registry)
}

fn process_options(process: config::Process, handler: &config::Handler) -> ProcessOptions {
    ProcessOptions {
        argv: process.argv,
        accepts_args: handler.accepts_args,
        env: process.env,
        env_pass: process.env_pass,
        working_directory: process.working_directory,
        limits: process::Limits {
            memory_bytes: process.limits.memory.map(|size| size.0),
            cpu_seconds: process.limits.cpu.map(|span| span.0.as_secs().max(1)),
            open_files: process.limits.open_files,
            file_bytes: process.limits.file_size.map(|size| size.0),
        },
        grace: handler.grace.0,
        result: ResultSource::default(),
    }
}

fn scheduler_options(config: &Config, telemetry: &Telemetry) -> scheduler::Options {
    let catalog = Arc::new(config.catalog());
    // In the order of the file: the first pool is the default one.
    let named = |name: &String| PoolName::parse(name).ok().and_then(|name| catalog.pools.get(&name)).cloned();
    scheduler::Options {
        core: CoreOptions {
            pools: config.pools.iter().filter_map(|pool| named(&pool.name)).collect(),
            retention_count: usize::try_from(config.retention.count).unwrap_or(usize::MAX),
            retention_age: config.retention.age.0,
            payload_bytes_max: config.limits.queued_payload_bytes.0,
            crashes_max: config.limits.crashes_max,
        },
        catalog: catalog.clone(),
        drain_limit: config.server.drain_limit.0,
        watch_window: config.store.watch_window_events,
        telemetry: telemetry.clone(),
    }
}

/// The metrics, with what can be read from outside of the parts.
fn telemetry(config: &Config, exporters: &mut Exporters) -> Result<Telemetry, StartError> {
    if exporters.settings().disabled {
        return Ok(Telemetry::off());
    }
    let builder = metrics::Builder::new(exporters.resource().clone()).exemplars(exporters.settings().exemplars);
    let add = |builder: metrics::Builder, (reader, histograms)| builder.reader(reader, histograms);
    let metrics = exporters.metric_readers()?.into_iter().fold(builder, add).build();
    metrics.observe_exports(exporters.counts());
    for provider in metrics.providers() {
        let provider = provider.clone();
        exporters.at_stop(move || {
            // Exports for the last time; how that ended is counted.
            let _ = provider.shutdown();
        });
    }
    metrics.observe_runtime(&tokio::runtime::Handle::current().metrics());
    if !config.store.memory {
        metrics.observe_files(config.store.directory.clone());
    }
    Ok(Telemetry::new(metrics))
}

fn watchdog(config: &Config, telemetry: &Telemetry) -> io::Result<Watchdog> {
    let runtime = tokio::runtime::Handle::current().metrics();
    Watchdog::start(telemetry.liveness.clone(), runtime, config.server.stall_limit.0)
}

fn edge_options(config: &Config, instance: String, telemetry: &Telemetry) -> api::Options {
    let sampler = Arc::new(HostSampler::new());
    telemetry.metrics.observe_host(&sampler);
    api::Options {
        max_concurrent_streams: config.server.max_concurrent_streams,
        keepalive_interval: config.server.keepalive_interval.0,
        keepalive_timeout: config.server.keepalive_timeout.0,
        connection_age: config.server.connection_age.0,
        connection_age_grace: config.server.connection_age_grace.0,
        header_timeout: config.http.header_timeout.0,
        body_timeout: config.http.body_timeout.0,
        allowed_origins: config.http.allowed_origins.clone(),
        hosts: config.http.hosts.clone(),
        max_in_flight: config.server.max_in_flight,
        instance,
        host: Arc::new(move || sampler.health()),
        telemetry: telemetry.clone(),
    }
}

/// The scheduler's loop has a thread of its own, so that a busy runtime cannot hold it up.
fn spawn_scheduler(
    service: scheduler::Service,
    runtime: tokio::runtime::Handle,
) -> Result<tokio::sync::oneshot::Receiver<()>, StartError> {
    let (ended, wait) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("scheduler".to_owned()).spawn(move || {
        service.run(&runtime);
        // Whoever waits sees the end either way.
        let _ = ended.send(());
    });
    thread.map_err(failed_to("start the scheduler"))?;
    Ok(wait)
}

/// SIGTERM and SIGINT begin a drain; a second one hurries it.
fn spawn_signals(handle: Handle) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let mut limit = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!(hurry = limit.is_some(), "asked to stop; a second signal hurries");
            handle.drain(limit);
            limit = Some(Duration::ZERO);
        }
    });
    Ok(())
}

fn announce(path: &Path, address: SocketAddr) -> io::Result<()> {
    // A reader sees the whole address or no file.
    let draft = path.with_extension("draft");
    std::fs::write(&draft, format!("{address}\n"))?;
    std::fs::rename(&draft, path)
}

fn stop_processes(host: Arc<Host>) {
    // Runners that still hold it end with the runtime; then the supervisor sees its pipe close.
    if let Some(host) = Arc::into_inner(host)
        && let Err(error) = host.stop()
    {
        tracing::warn!(%error, "failed to wait for the supervisor");
    }
}
