//! Log, metrics, traces, liveness, and health of the host.

pub mod control_groups;
pub mod cpu;
pub mod export;
pub mod fatal;
mod grpc_status;
pub mod host;
pub mod liveness;
pub mod log;
mod log_throttle;
pub mod memory_limit;
pub mod metrics;
pub mod panics;
pub mod propagation;
pub mod scope;
mod start;
pub mod task_log;
pub mod trace;

use std::sync::Arc;

use liveness::Liveness;
use metrics::{Metrics, ServerGauges};

pub use log_throttle::INCIDENT;
pub use start::{Options, start, start_embedded};

/// Metrics and liveness, for every component of the server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub liveness: Arc<Liveness>,
    pub gauges: Arc<ServerGauges>,
}

impl Telemetry {
    pub fn new(metrics: Metrics) -> Self {
        let (liveness, gauges) = (Arc::<Liveness>::default(), Arc::<ServerGauges>::default());
        metrics.observe_server(&gauges);
        metrics.observe_liveness(&liveness);
        Self { metrics, liveness, gauges }
    }

    pub fn off() -> Self {
        Self::new(Metrics::off())
    }
}
