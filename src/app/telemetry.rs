//! Builds the metrics, the sampler of the host, and the watchdog.

use std::fmt::Display;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::error::{StartError, failed_to};
use crate::config::Config;
use crate::telemetry::Telemetry;
use crate::telemetry::export::pipeline::Pipeline;
use crate::telemetry::host::HostSampler;
use crate::telemetry::liveness::Watchdog;

pub(super) fn build(pipeline: &mut Pipeline) -> Result<Telemetry, StartError> {
    if pipeline.settings().disabled {
        return Ok(Telemetry::off());
    }
    let metrics = pipeline.metrics()?.build();
    metrics.observe_exports(pipeline.counts());
    for provider in metrics.providers() {
        let provider = provider.clone();
        pipeline.at_shutdown(move || {
            // Exports for the last time; the result is counted elsewhere.
            let _ = provider.shutdown();
        });
    }
    metrics.observe_runtime(&Handle::current().metrics());
    Ok(Telemetry::new(metrics))
}

/// Logs what was found, and starts to measure the files. The first reading waits for the disk.
pub(super) fn store_opened(config: &Config, telemetry: &Telemetry, notes: &[impl Display]) {
    for note in notes {
        tracing::warn!("{note}");
    }
    if !config.store.memory {
        telemetry.metrics.observe_files(config.store.directory.clone());
    }
}

/// The sampler feeds the metrics of the host, and the API's reports of its health.
pub(super) fn host_sampler(telemetry: &Telemetry) -> Arc<HostSampler> {
    let sampler = Arc::new(HostSampler::new());
    telemetry.metrics.observe_host(&sampler);
    sampler
}

pub(super) fn start_watchdog(config: &Config, telemetry: &Telemetry) -> Result<Watchdog, StartError> {
    let runtime = Handle::current().metrics();
    let watchdog = Watchdog::start(telemetry.liveness.clone(), runtime, config.server.stall_limit.0);
    watchdog.map_err(failed_to("start the watchdog"))
}
