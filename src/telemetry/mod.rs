//! What the server tells about itself: its log, its metrics, its traces, and the health of its host.

pub mod export;
pub mod host;
pub mod log;
pub mod metrics;
pub mod propagation;
mod repeats;
pub mod scope;
mod start;
pub mod tasklog;
pub mod trace;
pub mod vitals;

use std::sync::Arc;

use metrics::{Metrics, ServerGauges};
use vitals::Vitals;

pub use start::{Options, StartError, start};

/// What every part is handed to tell about itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Counts.
    pub metrics: Metrics,
    /// Signs of life.
    pub vitals: Arc<Vitals>,
    /// How the parts stand.
    pub gauges: Arc<ServerGauges>,
}

impl Telemetry {
    /// Shows the parts in these metrics.
    pub fn new(metrics: Metrics) -> Self {
        let (vitals, gauges) = (Arc::<Vitals>::default(), Arc::<ServerGauges>::default());
        metrics.observe_server(&gauges);
        metrics.observe_vitals(&vitals);
        Self { metrics, vitals, gauges }
    }

    /// Counts nothing.
    pub fn off() -> Self {
        Self::new(Metrics::off())
    }
}
