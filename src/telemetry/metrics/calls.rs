//! Calls of the API, by method and status.

use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use opentelemetry_semantic_conventions::attribute as semconv;
use tokio::time::Instant;

use crate::telemetry::grpc_status::{self, RPC_STATUS_CODE};

use super::exemplar::SampledSpan;
use super::instruments::HistogramSeries;
use super::registry::Metrics;
use super::table;

const OTHER: &str = "_OTHER";

/// Measures calls. Shared by all connections; never waits.
pub struct CallMeter {
    metrics: Metrics,
    methods: HashMap<String, usize>,
    /// The last one is that of all other methods.
    series: Vec<MethodSeries>,
}

struct MethodSeries {
    method: String,
    by_status: [OnceLock<HistogramSeries>; grpc_status::COUNT],
}

impl CallMeter {
    /// `methods` are names such as `lineshaft.v1.TaskService/GetTask`.
    pub fn new(metrics: &Metrics, methods: Vec<String>) -> Arc<Self> {
        let all: Vec<String> = methods.into_iter().chain([OTHER.to_owned()]).collect();
        let by_name = all.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let series = all.into_iter().map(|method| MethodSeries { method, by_status: Default::default() });
        Arc::new(Self { metrics: metrics.clone(), methods: by_name, series: series.collect() })
    }

    /// A call of the path `/package.Service/Method` begins. `span` is called only if exemplars are kept.
    pub fn begin(self: &Arc<Self>, path: &str, span: impl FnOnce() -> Option<SampledSpan>) -> Call {
        let method = self.methods.get(path.strip_prefix('/').unwrap_or(path)).copied();
        let method = method.unwrap_or(self.series.len() - 1);
        let span = if self.metrics.instruments().exemplars().is_on() { span() } else { None };
        Call { meter: self.clone(), method, began: Instant::now(), span, ended: !self.metrics.is_on() }
    }
}

/// A call in progress. If it is dropped before its end it counts as cancelled.
pub struct Call {
    meter: Arc<CallMeter>,
    method: usize,
    began: Instant,
    span: Option<SampledSpan>,
    ended: bool,
}

impl Call {
    /// Counts the call with this gRPC status code. Only the first end counts.
    pub fn end(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let series = &self.meter.series[self.method];
        let status = grpc_status::index(code);
        let make = || {
            let name = grpc_status::name(status);
            let labels = [
                (semconv::RPC_SYSTEM_NAME, "grpc"),
                (semconv::RPC_METHOD, &*series.method),
                (RPC_STATUS_CODE, name),
                (semconv::ERROR_TYPE, name),
            ];
            let used = if grpc_status::is_server_error(status) { &labels[..] } else { &labels[..3] };
            self.meter.metrics.instruments().histogram(&table::RPC_DURATION, used)
        };
        let duration = self.began.elapsed();
        let series = series.by_status[status].get_or_init(make);
        series.record(duration);
        series.offer_exemplar(duration, || self.span);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(grpc_status::CANCELLED);
    }
}
