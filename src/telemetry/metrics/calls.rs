//! Calls of the API, by method and status.

use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use tokio::time::Instant;

use super::exemplar::SampledSpan;
use super::instruments::Distribution;
use super::{Metrics, table};

/// Names of the gRPC status codes, by number.
const STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const CANCELLED: i32 = 1;
const UNKNOWN: usize = 2;
/// What a method is called that is not in the contract.
const OTHER: &str = "_OTHER";

/// Counts calls. Shared by all connections; waits for nobody.
pub struct CallMeter {
    metrics: Metrics,
    methods: HashMap<String, usize>,
    /// The last one is that of all other methods.
    series: Vec<MethodSeries>,
}

struct MethodSeries {
    method: String,
    by_status: [OnceLock<Distribution>; STATUS.len()],
}

impl CallMeter {
    /// A meter for these methods, such as `lineshaft.v1.TaskService/GetTask`.
    pub fn new(metrics: &Metrics, methods: Vec<String>) -> Arc<Self> {
        let all: Vec<String> = methods.into_iter().chain([OTHER.to_owned()]).collect();
        let by_name = all.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let series = all.into_iter().map(|method| MethodSeries { method, by_status: Default::default() });
        Arc::new(Self { metrics: metrics.clone(), methods: by_name, series: series.collect() })
    }

    /// A call has come in, for the path `/package.Service/Method`. `trace` is asked when an exemplar may name it.
    pub fn begin(self: &Arc<Self>, path: &str, trace: impl FnOnce() -> Option<SampledSpan>) -> Call {
        let method = self.methods.get(path.strip_prefix('/').unwrap_or(path)).copied();
        let method = method.unwrap_or(self.series.len() - 1);
        let trace = if self.metrics.instruments().exemplars().any() { trace() } else { None };
        Call { meter: self.clone(), method, began: Instant::now(), trace, ended: !self.metrics.is_on() }
    }
}

/// A call under way. One that is dropped before it has ended was given up by its caller.
pub struct Call {
    meter: Arc<CallMeter>,
    method: usize,
    began: Instant,
    trace: Option<SampledSpan>,
    ended: bool,
}

impl Call {
    /// The call has ended with this gRPC status; only the first end counts.
    pub fn end(&mut self, status: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let series = &self.meter.series[self.method];
        let place = usize::try_from(status).ok().filter(|place| *place < STATUS.len()).unwrap_or(UNKNOWN);
        let make = || {
            let name = STATUS[place];
            let labels = [
                ("rpc.system.name", "grpc"),
                ("rpc.method", &*series.method),
                ("rpc.status_code", name),
                ("error.type", name),
            ];
            // Only faults of the server are errors of the server.
            let given = if is_fault(place) { &labels[..] } else { &labels[..3] };
            self.meter.metrics.instruments().distribution(&table::RPC_DURATION, given)
        };
        let took = self.began.elapsed();
        let series = series.by_status[place].get_or_init(make);
        series.record(took);
        series.remember(took, || self.trace);
    }
}

/// Whether the convention counts the status as an error of the server.
fn is_fault(status: usize) -> bool {
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"].contains(&STATUS[status])
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELLED);
    }
}
