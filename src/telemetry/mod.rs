//! What the server tells about itself: its log, its metrics, its traces, and the health of its host.

pub mod export;
pub mod host;
pub mod liveness;
pub mod log;
mod log_throttle;
pub mod metrics;
pub mod propagation;
pub mod scope;
mod start;
pub mod task_log;
pub mod trace;

use std::sync::Arc;

use liveness::Liveness;
use metrics::{Metrics, ServerGauges};

pub use start::{Options, start};

/// What every part is handed to tell about itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Counts.
    pub metrics: Metrics,
    /// Signs of life.
    pub liveness: Arc<Liveness>,
    /// How the parts stand.
    pub gauges: Arc<ServerGauges>,
}

impl Telemetry {
    /// Shows the parts in these metrics.
    pub fn new(metrics: Metrics) -> Self {
        let (liveness, gauges) = (Arc::<Liveness>::default(), Arc::<ServerGauges>::default());
        metrics.observe_server(&gauges);
        metrics.observe_liveness(&liveness);
        Self { metrics, liveness, gauges }
    }

    /// Counts nothing.
    pub fn off() -> Self {
        Self::new(Metrics::off())
    }
}
