//! Reloading handlers, pools, limits of tasks and schedules on SIGHUP, and when the configuration file has changed.
//!
//! A configuration is used as a whole or not at all. Attempts that run keep the handler that they began with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::{FILE_INTERVAL, Stamp, stamp};
use crate::config::{Config, ConfigError, Loaded, Sources, fixed_settings};
use crate::function::Handlers;
use crate::scheduler::{self, Refusal};
use crate::telemetry::metrics::ServerGauges;
use crate::telemetry::panics;

use super::checked_config::{CheckedConfig, check_loaded};
use super::error::{StartError, failed_to};
use super::options;
use super::registry::{self, Hosts};
use super::schedules::ConfiguredSchedules;
use crate::runners::Runners;

/// The configuration of a server and its file, if it has one.
pub struct ConfigFile {
    sources: Arc<Sources>,
    path: Option<PathBuf>,
    /// Of the content that was loaded last, whether it was valid or not.
    seen: Stamp,
}

impl ConfigFile {
    /// Loads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn open(sources: Sources) -> Result<(CheckedConfig, Self), ConfigError> {
        let path = sources.file();
        // Before the file is read, so that a change in between is seen.
        let seen = path.as_deref().and_then(stamp);
        let loaded = sources.load()?;
        let schedules = check_loaded(&loaded)?;
        let checked = CheckedConfig { config: loaded.config, schedules };
        Ok((checked, Self { sources: Arc::new(sources), path, seen }))
    }

    /// Whether the file has changed since the last call.
    fn has_changed(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let found = stamp(path);
        found != std::mem::replace(&mut self.seen, found)
    }
}

pub(super) struct Reload {
    pub file: ConfigFile,
    /// With the pools and handlers that are in use, and the other settings as they were at the start.
    pub running: Config,
    pub hosts: Hosts,
    pub handle: scheduler::Handle,
    pub gauges: Arc<ServerGauges>,
    /// Why the last reload failed.
    pub fault: Option<String>,
    /// Whether to reload although the file has not changed.
    pub is_due: bool,
}

#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The rest of the configuration is in use.
    #[error(transparent)]
    Schedules(Refusal),
}

/// Begins to follow the file and the signal. The task ends after `stop`.
///
/// # Errors
/// If the process cannot receive the signal.
pub(super) fn spawn(reload: Reload, stop: CancellationToken) -> Result<JoinHandle<()>, StartError> {
    let hangup = signal(SignalKind::hangup()).map_err(failed_to("listen for signals"))?;
    let following = reload.follow(hangup, stop.clone());
    let following = async move {
        stop.run_until_cancelled(following).await;
    };
    Ok(tokio::spawn(panics::essential(following)))
}

impl Reload {
    async fn follow(mut self, mut hangup: Signal, stop: CancellationToken) {
        let mut ticks = interval(FILE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                _ = hangup.recv() => self.is_due = true,
                _ = ticks.tick() => self.is_due |= self.file.has_changed(),
            }
            if self.is_due {
                self.is_due = self.reload().await;
            }
        }
    }

    /// Returns whether to try again, although the file does not change.
    async fn reload(&mut self) -> bool {
        let result = self.try_reload().await;
        self.gauges.config_refused.store(result.is_err().into(), Ordering::Relaxed);
        let error = match result {
            Ok(()) => {
                self.fault = None;
                return false;
            }
            Err(error) => error,
        };
        let only_schedules = matches!(error, ReloadError::Schedules(_));
        let left = if only_schedules { "schedules" } else { "handlers, pools, limits and schedules" };
        let tries_again = matches!(
            error,
            ReloadError::Refused(Refusal::StoreUnavailable(_)) | ReloadError::Schedules(Refusal::StoreUnavailable(_))
        );
        let fault = Some(error.to_string());
        if !tries_again || self.fault != fault {
            tracing::error!(%error, "the configuration is not reloaded; the previous {left} stay in use");
        }
        self.fault = fault;
        tries_again
    }

    async fn try_reload(&mut self) -> Result<(), ReloadError> {
        let (sources, hosts) = (self.file.sources.clone(), self.hosts.clone());
        // Files are read and modules compiled.
        let loaded = tokio::task::spawn_blocking(move || load(&sources, &hosts));
        let loaded = loaded.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let (loaded, runners, schedules) = loaded?;
        let reconfigured = self.handle.reconfigure(options::configuration(&loaded.config, runners)).await;
        reconfigured.map_err(|refusal| located(refusal, &loaded))?;
        self.handle.configure_schedules(schedules).await.map_err(ReloadError::Schedules)?;
        let modules = self.hosts.modules.clone();
        drop(tokio::task::spawn_blocking(move || modules.remove_unused()));
        let fixed = fixed_settings(&self.running, &loaded.config);
        if !fixed.is_empty() {
            let settings = fixed.join(", ");
            tracing::warn!(settings, "settings have changed that are used only after a restart");
        }
        let Config { builtins, pools, connections, handlers, task_limits, schedules, .. } = loaded.config;
        tracing::info!(
            handlers = handlers.len(),
            pools = pools.len(),
            task_limits = task_limits.len(),
            schedules = schedules.len(),
            "reloaded the configuration"
        );
        self.running =
            Config { builtins, pools, connections, handlers, task_limits, schedules, ..self.running.clone() };
        Ok(())
    }
}

fn load(sources: &Sources, hosts: &Hosts) -> Result<(Loaded, Runners, ConfiguredSchedules), ReloadError> {
    let loaded = sources.load()?;
    let schedules = check_loaded(&loaded)?;
    match registry::build(&loaded.config, &Handlers::new(), hosts) {
        Ok(runners) => Ok((loaded, runners, schedules)),
        Err(error) => {
            let is_its = |name: &str| loaded.config.handlers.iter().position(|handler| handler.name == name);
            match error.handler().and_then(is_its) {
                Some(index) => Err(loaded.problem(&format!("handler[{index}]"), error.to_string()).into()),
                None => Err(error.into()),
            }
        }
    }
}

/// Adds the line to a refusal that names a setting.
fn located(refusal: Refusal, loaded: &Loaded) -> ReloadError {
    match refusal {
        Refusal::BadField(bad) => loaded.problem(&bad.field, bad.description).into(),
        other => other.into(),
    }
}
