//! Starts what tells: exporters, spans, the log.

use opentelemetry::logs::LoggerProvider as _;

use super::export::{Exporters, SCOPE, Settings, SettingsError, TransportError, Variables};
use super::log::{self, LogError};
use super::task_log::{self, TaskLogs};
use super::trace::{self, Policy, Tracer};

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The collector; empty for none.
    pub endpoint: String,
    /// `grpc`, `http/protobuf`, or empty for no word.
    pub protocol: &'static str,
    /// How runs hang together with their submissions.
    pub policy: Policy,
    /// What of the tasks' output is exported.
    pub task_logs: TaskLogs,
    /// The log.
    pub log: log::Options,
}

/// Why nothing is told.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is exported where.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The exporters.
    #[error(transparent)]
    Export(#[from] TransportError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Starts everything for the rest of the process, and says in the log what is exported where.
///
/// # Errors
/// [`StartError`], for what cannot work. That a collector cannot be reached is none.
pub fn start(mut options: Options, variables: &Variables, instance: &str) -> Result<Exporters, StartError> {
    let settings = Settings::read(variables, &options.endpoint, options.protocol)?;
    let mut exporters = Exporters::start(settings, variables, instance)?;
    options.log.export_level = exporters.settings().log_level;
    log::init(&options.log, exporters.logger())?;
    exporters.begin();
    trace::propagate(exporters.settings().propagators);
    if let Some(tracer) = exporters.tracer() {
        let named = exporters.settings().sampler.asks_for_names();
        trace::install(Tracer::new(tracer, options.policy).naming(named));
    }
    if let Some(logger) = exporters.logger() {
        task_log::install(logger.logger(SCOPE), options.task_logs);
    }
    for warning in &exporters.settings().warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!("{}", exporters.summary());
    Ok(exporters)
}
