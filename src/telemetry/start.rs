//! Starts the exporters, the log and the tracer of the process.

use opentelemetry::logs::LoggerProvider as _;
use opentelemetry::trace::TracerProvider as _;

use super::export::otlp::ExportError;
use super::export::pipeline::{Pipeline, SCOPE};
use super::export::settings::{Settings, Variables};
use super::log::{self, LogError};
use super::panics;
use super::propagation;
use super::task_log::{self, TaskLogs};
use super::trace::{self, Policy, Tracer};

#[derive(Clone, Debug)]
pub struct Options {
    /// The collector; empty for none.
    pub endpoint: String,
    /// `grpc`, `http/protobuf`, or empty to choose by the port.
    pub protocol: &'static str,
    pub policy: Policy,
    pub task_logs: TaskLogs,
    pub log: log::Options,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Starts telemetry for the rest of the process and logs what is exported where.
///
/// # Errors
/// [`StartError`] for unusable settings. An unreachable collector is no error.
pub fn start(mut options: Options, variables: &Variables, instance: &str) -> Result<Pipeline, StartError> {
    let pipeline = open(&options, variables, instance)?;
    options.log.export_level.clone_from(&pipeline.settings().log_level);
    let counts = (!pipeline.settings().is_silent()).then(|| pipeline.counts());
    log::init(&options.log, log::Export { logger: pipeline.logger_provider(), counts })?;
    install(&options, &pipeline);
    Ok(pipeline)
}

/// Like [`start`], in a program with a log of its own.
pub fn start_embedded(options: &Options, variables: &Variables, instance: &str) -> Result<Pipeline, StartError> {
    let pipeline = open(options, variables, instance)?;
    install(options, &pipeline);
    Ok(pipeline)
}

fn open(options: &Options, variables: &Variables, instance: &str) -> Result<Pipeline, StartError> {
    let settings = Settings::read(variables, &options.endpoint, options.protocol);
    Ok(Pipeline::start(settings, variables, instance)?)
}

fn install(options: &Options, pipeline: &Pipeline) {
    panics::install_hook();
    propagation::install(pipeline.settings().propagators);
    if let Some(provider) = pipeline.tracer_provider() {
        trace::install(Tracer::new(provider.tracer(SCOPE), options.policy));
    }
    if let Some(provider) = pipeline.logger_provider() {
        task_log::install(provider.logger(SCOPE), options.task_logs);
    }
    for warning in &pipeline.settings().warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!("{}", pipeline.summary());
}
