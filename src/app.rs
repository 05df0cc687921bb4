//! The composition root: builds the parts of a server in order and stops them in reverse order.
//!
//! A drain, requested by a signal or over the API, ends the scheduler. Then the server stops accepting
//! calls, and the processes and the store are closed.

mod admin_ports;
mod artifact_cleaner;
mod checked_config;
mod connections;
pub mod doctor;
mod error;
mod listening;
mod options;
mod registry;
mod reload;
mod resources;
mod scheduler_thread;
mod schedules;
mod security;
mod server_clock;
mod signals;
mod state_directory;
mod telemetry;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::files::replace;
use crate::function::Handlers;
use crate::runners::Registry;
use crate::runners::process::Host;
use crate::telemetry::export::pipeline::Pipeline;
use crate::telemetry::liveness::{Phase, Watchdog};
use crate::telemetry::memory_limit::available_memory;
use crate::telemetry::metrics::ServerGauges;
use crate::telemetry::panics;
use crate::{api, scheduler, store};

pub use checked_config::CheckedConfig;
pub use error::StartError;
pub use options::telemetry as telemetry_options;
pub use reload::ConfigFile;

use error::failed_to;
use listening::bind_when_free;
use registry::Hosts;
use reload::Reload;
use resources::ResourceSampler;
use state_directory::StateDirectory;

/// Time for open calls to end after everything else has stopped.
const CALLS_GRACE: Duration = Duration::from_secs(2);

/// The address is no secret.
const READY_FILE_MODE: u32 = 0o644;

/// A server that accepts connections.
pub struct Started {
    address: SocketAddr,
    handle: scheduler::Handle,
    scheduler_handle: Arc<OnceLock<scheduler::Handle>>,
    scheduler_ended: oneshot::Receiver<()>,
    server: JoinHandle<Result<(), api::ServeError>>,
    server_stop: CancellationToken,
    artifact_cleaner: JoinHandle<()>,
    admin_tasks: JoinSet<()>,
    admin_stop: CancellationToken,
    hosts: Hosts,
    gauges: Arc<ServerGauges>,
    resources: ResourceSampler,
    reload: Option<JoinHandle<()>>,
    /// Whether the schedules of the configuration could not be stored.
    needs_reload: bool,
    watchdog: Watchdog,
    /// Removed when the server has ended, if it is temporary.
    state: StateDirectory,
}

/// Begins a drain.
#[derive(Clone)]
pub struct Drain(scheduler::Handle);

impl Drain {
    /// `None`: within the configured limit. Repeated calls can only shorten it.
    pub fn begin(&self, limit: Option<Duration>) {
        self.0.drain(limit);
    }
}

/// Serves until a drain has completed.
///
/// If `ready_file` is given, the address is written to it once connections are accepted. `instance`
/// identifies this run of the server.
///
/// # Errors
/// [`StartError`]; a server that has started ends by a drain, unless a part of it ends unexpectedly.
pub async fn serve(
    (checked, file): (CheckedConfig, ConfigFile),
    ready_file: Option<PathBuf>,
    instance: &str,
    pipeline: &mut Pipeline,
) -> Result<(), StartError> {
    let config = checked.config.clone();
    let mut started = start_checked(checked, Handlers::new(), instance, pipeline).await?;
    started.drain_on_signals()?;
    started.reload_on_changes(config, file)?;
    if let Some(path) = &ready_file {
        let address = format!("{}\n", started.address());
        replace(path, address.as_bytes(), READY_FILE_MODE).map_err(failed_to("write the ready file"))?;
    }
    started.ended().await
}

/// Starts a server with these functions. It ends with [`Started::ended`].
///
/// # Errors
/// [`StartError`].
pub async fn start(
    config: Config,
    functions: Handlers,
    instance: &str,
    pipeline: &mut Pipeline,
) -> Result<Started, StartError> {
    start_checked(CheckedConfig::new(config)?, functions, instance, pipeline).await
}

async fn start_checked(
    CheckedConfig { config, schedules }: CheckedConfig,
    functions: Handlers,
    instance: &str,
    pipeline: &mut Pipeline,
) -> Result<Started, StartError> {
    let runtime = runtime::Handle::current();
    // Bound first, so that a port in use or a bad certificate is reported before the store is opened.
    let security = security::open(&config)?;
    let (listener, address) = listen(config.server.listen).await?;

    let telemetry = telemetry::build(pipeline)?;
    let watchdog = telemetry::start_watchdog(&config, &telemetry)?;
    let sampler = telemetry::host_sampler(&telemetry);
    let server_options = options::server(&config, instance, sampler, &telemetry);

    // The admin ports serve during recovery, when there is no scheduler yet, and until the very end.
    let scheduler_handle = Arc::new(OnceLock::new());
    let admin_stop = CancellationToken::new();
    let prometheus = pipeline.settings().prometheus.clone();
    let (admin_options, admin_scheduler) = (server_options.clone(), scheduler_handle.clone());
    let admin_tasks = admin_ports::spawn(&config, prometheus, admin_options, admin_scheduler, &admin_stop).await?;

    let state = StateDirectory::new(&config)?;
    log_memory_limits(&config);
    let modules = state.modules();
    let scheduler_options =
        options::scheduler(&config, &telemetry, &server_options.memory, modules.clone(), state.artifacts(&config));
    let mut recovery = scheduler::Recovery::new(scheduler_options.core.clone());
    let (store, notes) = store::open(&options::store(&config, state.store.clone()), &mut recovery)?;
    telemetry::store_opened(&config, &telemetry, &notes);
    let hosts = state.hosts(&config, instance, modules.clone())?;
    let registry = Arc::new(Registry::from(registry::build(&config, &functions, &hosts)?));
    for (name, upload) in recovery.uploads() {
        registry.put(name, &modules.load(name, upload));
    }
    modules.remove_unused();
    let clock = server_clock::start();
    let service = scheduler::Service::start(scheduler_options, store, recovery, registry, clock.clone(), &runtime);
    let service = service.map_err(failed_to("start the pools"))?;
    let handle = service.handle();
    let (scheduler::RecoveryCounts { tasks, unfinished }, revision) = (service.recovery_counts(), handle.revision());
    // Cannot be set already: this is the only place that sets it.
    let _ = scheduler_handle.set(handle.clone());
    // Before the first task can start.
    let resources = ResourceSampler::start(handle.clone(), config.limits.memory_reserve.0)?;
    let scheduler_ended = scheduler_thread::spawn(service, runtime)?;
    let configured = handle.configure_schedules(schedules).await;
    if let Err(error) = &configured {
        tracing::error!(%error, "the schedules of the configuration are not in use; those of the last start are");
    }

    let server_stop = CancellationToken::new();
    let artifact_cleaner = artifact_cleaner::spawn(handle.clone(), clock, server_stop.clone());
    let server = api::serve(listener, server_options, security, handle.clone(), server_stop.clone());
    let server = tokio::spawn(panics::essential(server));
    telemetry.liveness.enter(Phase::Serving);
    tracing::info!(%address, store = handle.store_kind(), tasks, unfinished, %revision, "serving");
    Ok(Started {
        address,
        handle,
        scheduler_handle,
        scheduler_ended,
        server,
        server_stop,
        artifact_cleaner,
        admin_tasks,
        admin_stop,
        hosts,
        gauges: telemetry.gauges,
        resources,
        reload: None,
        needs_reload: configured.is_err(),
        watchdog,
        state,
    })
}

impl Started {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn drain(&self) -> Drain {
        Drain(self.handle.clone())
    }

    /// # Errors
    /// [`StartError`] if the process cannot receive signals.
    pub fn drain_on_signals(&self) -> Result<(), StartError> {
        signals::drain_on_signals(self.handle.clone())
    }

    /// Reloads handlers and pools after SIGHUP and when the file has changed. `config` is the present content.
    ///
    /// # Errors
    /// [`StartError`] if the process cannot receive signals.
    fn reload_on_changes(&mut self, config: Config, file: ConfigFile) -> Result<(), StartError> {
        let (hosts, handle, gauges) = (self.hosts.clone(), self.handle.clone(), self.gauges.clone());
        let reload = Reload { file, running: config, hosts, handle, gauges, fault: None, is_due: self.needs_reload };
        self.reload = Some(reload::spawn(reload, self.server_stop.clone())?);
        Ok(())
    }

    /// Waits until a drain has completed, and stops the other parts.
    ///
    /// # Errors
    /// [`StartError`] if a part ends unexpectedly.
    pub async fn ended(self) -> Result<(), StartError> {
        let Self { scheduler_ended, mut server, hosts, mut admin_tasks, .. } = self;
        wait_for_end(scheduler_ended, &mut server, &hosts.process).await?;
        self.server_stop.cancel();
        if tokio::time::timeout(CALLS_GRACE, server).await.is_err() {
            tracing::warn!("closed connections that still had open calls");
        }
        // It ends at the same token.
        let _ = self.artifact_cleaner.await;
        if let Some(reload) = self.reload {
            // It ends now: the token that stops the API stops it too.
            let _ = reload.await;
        }
        stop_processes(hosts.process);
        self.admin_stop.cancel();
        // They end within two seconds.
        while admin_tasks.join_next().await.is_some() {}
        drop((self.resources, self.handle, self.scheduler_handle, self.watchdog, self.state));
        tracing::info!("stopped");
        Ok(())
    }
}

fn log_memory_limits(config: &Config) {
    let limits = &config.limits;
    tracing::info!(
        available_bytes = available_memory(),
        request_bytes = limits.request_bytes.0,
        response_bytes = limits.response_bytes.0,
        queued_payload_bytes = limits.queued_payload_bytes.0,
        "memory limits"
    );
}

/// Waits until the scheduler has drained.
async fn wait_for_end(
    scheduler: oneshot::Receiver<()>,
    server: &mut JoinHandle<Result<(), api::ServeError>>,
    host: &Host,
) -> Result<(), StartError> {
    tokio::select! {
        ended = scheduler => ended.map_err(|_| StartError::Ended { part: "scheduler" }),
        ended = server => {
            if let Ok(Err(error)) = ended {
                tracing::error!(%error, "the API has ended");
            }
            Err(StartError::Ended { part: "API" })
        }
        () = host.supervisor_exited() => {
            tracing::error!("the supervisor process was killed; the processes of handlers end with the server");
            Err(StartError::Ended { part: "supervisor" })
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = bind_when_free(async || TcpListener::bind(address).await, |error| error).await;
    let listener = listener.map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(failed_to("read the local address"))?;
    Ok((listener, address))
}

fn stop_processes(host: Arc<Host>) {
    // A runner that still holds the host ends with the runtime; then the supervisor sees its pipe close.
    if let Some(host) = Arc::into_inner(host)
        && let Err(error) = host.stop()
    {
        tracing::warn!(%error, "failed to wait for the supervisor");
    }
}
