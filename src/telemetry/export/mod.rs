//! Telemetry on its way to collectors, to Zipkin, or into lines of JSON.
//!
//! Exporters live on a runtime of their own, so that neither a busy server nor a server with one core
//! keeps them from working, nor they the server. Queues are bounded, and the end takes three seconds
//! at most, whatever the collector does.

mod batch;
mod lines;
mod logs;
mod metrics;
mod resource;
mod sampling;
pub mod settings;
mod spans;
mod transport;
mod zipkin;

use std::ffi::OsString;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::Key;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::SdkTracer;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::metrics::Histograms;

pub use batch::{Counts, Tally};
pub use lines::open as open_lines;
pub use metrics::CountedExporter;
pub use sampling::{Remote, Root, SamplerKind};
pub use settings::{Destination, Settings, SettingsError, Signal, Variables};
pub use transport::TransportError;

/// Reads the instruments at intervals, and exports what it finds.
pub type MetricReader = PeriodicReader<CountedExporter>;

/// Removes the variables of the specification from the environment, once they have been read: what the library
/// found there it would add to what is said here, although a file may stand for all of them.
///
/// # Safety
/// No other thread may run.
#[expect(unsafe_code, reason = "nothing else hides a variable from a library")]
pub unsafe fn forget_variables() {
    let ours =
        |(name, _): (OsString, OsString)| name.to_str().is_some_and(|name| name.starts_with("OTEL_")).then_some(name);
    for name in std::env::vars_os().filter_map(ours) {
        // SAFETY: as the caller has promised.
        unsafe { std::env::remove_var(name) };
    }
}

/// Name of the instrumentation scope of spans and log records.
pub const SCOPE: &str = "lineshaft";

/// Longest that the last exports may take at the end.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The exporters of this process.
pub struct Exporters {
    settings: Settings,
    resource: Resource,
    counts: [Arc<Counts>; 3],
    runtime: Option<tokio::runtime::Runtime>,
    close: CancellationToken,
    couriers: Vec<JoinHandle<()>>,
    tracer: Option<SdkTracer>,
    logger: Option<SdkLoggerProvider>,
    last_words: Vec<Box<dyn FnOnce() + Send>>,
    /// Asks what is to be recorded, where somebody else decides that.
    poller: Option<BoxFuture<'static, ()>>,
}

impl Exporters {
    /// Starts what the settings name; without any, no thread is started.
    ///
    /// # Errors
    /// [`TransportError`], for certificates and endpoints that cannot be used. That a collector cannot
    /// be reached is none.
    pub fn start(settings: Settings, variables: &Variables, instance: &str) -> Result<Self, TransportError> {
        let resource = resource::resource(&settings, variables, instance);
        let mut exporters = Self {
            resource,
            counts: Signal::ALL.map(|signal| Arc::new(Counts::new(signal))),
            runtime: None,
            close: CancellationToken::new(),
            couriers: Vec::new(),
            tracer: None,
            logger: None,
            last_words: Vec::new(),
            poller: None,
            settings,
        };
        if !exporters.settings.is_silent() {
            // A worker of its own: whoever blocks on an exporter must not be the one who drives it.
            let builder = &mut tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(1).thread_name("telemetry").enable_all().build();
            let runtime = runtime.map_err(TransportError::Runtime)?;
            exporters.open_traces(runtime.handle())?;
            exporters.open_logs(runtime.handle())?;
            exporters.runtime = Some(runtime);
        }
        Ok(exporters)
    }

    fn open_traces(&mut self, runtime: &Handle) -> Result<(), TransportError> {
        let _inside = runtime.enter();
        let counts = self.counts[0].clone();
        let value_length = self.settings.span_bounds.value_length;
        let mut queues = Vec::new();
        for route in self.settings.traces.clone() {
            let sink = spans::Sink::new(transport::spans(&route.to, &counts)?, &self.resource, value_length);
            queues.push(self.queue(runtime, route.batching, &counts, sink));
        }
        if let Some(zipkin) = self.settings.zipkin.clone() {
            let sink = spans::Sink::new(zipkin::spans(&zipkin, &counts)?, &self.resource, value_length);
            queues.push(self.queue(runtime, zipkin.batching, &counts, sink));
        }
        if !queues.is_empty() {
            let service = self.resource.get(&Key::from_static_str("service.name"));
            let service = service.map(|name| name.to_string()).unwrap_or_default();
            let (sampler, poller) = self.settings.sampler.build(&service);
            self.poller = poller;
            let provider = spans::provider(queues, &self.settings, self.resource.clone(), sampler);
            self.tracer = Some(provider.tracer(SCOPE));
        }
        Ok(())
    }

    fn open_logs(&mut self, runtime: &Handle) -> Result<(), TransportError> {
        let _inside = runtime.enter();
        let counts = self.counts[2].clone();
        let mut queues = Vec::new();
        for route in self.settings.logs.clone() {
            let sink = logs::Sink::new(transport::logs(&route.to, &counts)?, &self.resource);
            queues.push(self.queue(runtime, route.batching, &counts, sink));
        }
        if !queues.is_empty() {
            self.logger = Some(logs::provider(queues, self.settings.record_bounds, self.resource.clone()));
        }
        Ok(())
    }

    fn queue<T: Send + 'static>(
        &mut self,
        runtime: &Handle,
        batching: settings::Batching,
        counts: &Arc<Counts>,
        sink: impl batch::Sink<T>,
    ) -> batch::Queue<T> {
        let (queue, courier) = batch::Queue::start(runtime, batching, counts.clone(), self.close.clone(), sink);
        self.couriers.push(courier);
        queue
    }

    /// Begins with what has to do with others before there is anything to export. It tells the log how that
    /// goes: call it when there is one.
    pub fn begin(&mut self) {
        if let (Some(poller), Some(runtime)) = (self.poller.take(), &self.runtime) {
            // It ends with the runtime: nobody has to wait for it.
            runtime.spawn(poller);
        }
    }

    /// Who tells.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// What was said.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What became of each kind of telemetry: traces, metrics, logs.
    pub fn counts(&self) -> &[Arc<Counts>; 3] {
        &self.counts
    }

    /// Makes spans, when they are exported.
    pub fn tracer(&self) -> Option<SdkTracer> {
        self.tracer.clone()
    }

    /// Takes log records, when they are exported.
    pub fn logger(&self) -> Option<&SdkLoggerProvider> {
        self.logger.as_ref()
    }

    /// Each reads the instruments and exports them, with histograms as its route wants them. The shutdown of the
    /// providers that they are given to belongs into [`Exporters::at_stop`].
    ///
    /// # Errors
    /// [`TransportError`], for certificates and endpoints that cannot be used.
    pub fn metric_readers(&self) -> Result<Vec<(MetricReader, Histograms)>, TransportError> {
        let Some(runtime) = &self.runtime else { return Ok(Vec::new()) };
        let _inside = runtime.enter();
        let counts = &self.counts[1];
        let reader = |route: &settings::MetricRoute| {
            let exporter = transport::metrics(&route.to, route.temporality, counts)?;
            let exporter = CountedExporter::new(exporter, counts.clone(), runtime.handle().clone(), route.timeout);
            let histograms = if route.exponential { Histograms::Exponential } else { Histograms::Buckets };
            Ok((PeriodicReader::builder(exporter).with_interval(route.interval).build(), histograms))
        };
        self.settings.metrics.iter().map(reader).collect()
    }

    /// What to do at the end, beside the last exports; it may block and is given up after three seconds.
    pub fn at_stop(&mut self, last_words: impl FnOnce() + Send + 'static) {
        self.last_words.push(Box::new(last_words));
    }

    /// One line for the operator.
    pub fn summary(&self) -> String {
        let described = |destination: &Destination| match destination {
            Destination::Collector(target) => {
                format!("{} ({})", without_secrets(&target.endpoint), target.protocol.name())
            }
            Destination::Lines(None) => "standard output".to_owned(),
            Destination::Lines(Some(path)) => path.display().to_string(),
        };
        let mut exported = Vec::new();
        for signal in Signal::ALL {
            let mut to: Vec<String> = self.settings.destinations(signal).into_iter().map(described).collect();
            if let Some(zipkin) = self.settings.zipkin.as_ref().filter(|_| signal == Signal::Traces) {
                to.push(format!("{} (zipkin)", without_secrets(&zipkin.endpoint)));
            }
            if !to.is_empty() {
                exported.push(format!("{} to {}", signal.name(), to.join(" and ")));
            }
        }
        if exported.is_empty() && self.settings.prometheus.is_some() {
            return "no telemetry is sent anywhere; /metrics is there for Prometheus".to_owned();
        }
        if exported.is_empty() {
            return "no telemetry is exported; set OTEL_EXPORTER_OTLP_ENDPOINT to export it".to_owned();
        }
        format!("exporting {}", exported.join(", "))
    }

    /// Sends what is left, for three seconds at most. Blocks: call it off any runtime.
    pub fn stop(mut self) {
        let Some(runtime) = self.runtime.take() else {
            return self.last_words.into_iter().for_each(|last_words| last_words());
        };
        self.close.cancel();
        let (done, wait) = mpsc::channel();
        let parts = self.last_words.len() + 1;
        for last_words in self.last_words {
            let done = done.clone();
            let thread = std::thread::Builder::new().name("telemetry-stop".to_owned());
            // Without a thread there is nobody to wait for.
            let _ = thread.spawn(move || {
                last_words();
                let _ = done.send(());
            });
        }
        runtime.spawn(async move {
            for courier in self.couriers {
                // One that panicked has nothing more to send.
                let _ = courier.await;
            }
            let _ = done.send(());
        });
        let (timer, late) = (tokio::time::Instant::now(), "telemetry: the collector was too slow at the end");
        for _ in 0..parts {
            let left = STOP_LIMIT.saturating_sub(timer.elapsed());
            if wait.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::warn!(limit = ?STOP_LIMIT, "{late}");
                break;
            }
        }
        runtime.shutdown_background();
        for counts in &self.counts {
            let Tally { exported, queue_full, failed } = counts.tally();
            if queue_full + failed > 0 {
                let signal = counts.signal.name();
                tracing::warn!(signal, exported, queue_full, failed, "telemetry was lost");
            }
        }
    }
}

/// A URL without user, password and query.
pub fn without_secrets(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) =
                rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
            let host = authority.rsplit('@').next().unwrap_or_default();
            path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
        }
        None => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporters(variables: &[(&str, &str)]) -> Exporters {
        let variables: Variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let settings = Settings::read(&variables, "", "").unwrap();
        Exporters::start(settings, &variables, "i").unwrap()
    }

    #[test]
    fn without_a_word_nothing_is_started() {
        let exporters = exporters(&[]);
        assert!(exporters.runtime.is_none() && exporters.tracer().is_none() && exporters.logger().is_none());
        assert!(exporters.metric_readers().unwrap().is_empty());
        assert!(exporters.summary().starts_with("no telemetry is exported"));
        let scraped = self::exporters(&[("OTEL_METRICS_EXPORTER", "prometheus")]).summary();
        assert_eq!(scraped, "no telemetry is sent anywhere; /metrics is there for Prometheus");
        exporters.stop();
    }

    #[test]
    fn one_line_tells_what_goes_where_and_no_secret() {
        let exporters = exporters(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@127.0.0.1:9/base?key=secret"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://127.0.0.1:4317"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ]);
        let line = exporters.summary();
        assert_eq!(
            line,
            "exporting traces to http://127.0.0.1:9/base/v1/traces (http/protobuf), logs to http://127.0.0.1:4317 (grpc)"
        );
        exporters.stop();
    }

    #[test]
    fn certificates_that_are_not_there_or_none_are_named() {
        let none = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let [all, own, key] = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"];
        for endpoint in ["https://c:4317", "https://c:4318"] {
            for wrong in [&[(all, "/no/such.pem")][..], &[(all, none)], &[(own, none), (key, none)]] {
                let named = |(name, path): &(&str, &str)| (format!("OTEL_EXPORTER_OTLP_{name}"), (*path).to_owned());
                let mut variables: Variables = wrong.iter().map(named).collect();
                variables.insert("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.to_owned());
                let settings = Settings::read(&variables, "", "").unwrap();
                let error = Exporters::start(settings, &variables, "i").err().unwrap().to_string();
                assert!(error.contains(wrong[0].1), "{error}");
            }
        }
    }

    #[test]
    fn the_end_does_not_wait_for_last_words_that_never_end() {
        let mut exporters =
            exporters(&[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]);
        let (_hold, forever) = mpsc::channel::<()>();
        exporters.at_stop(move || forever.recv().unwrap_or_default());
        let began = tokio::time::Instant::now();
        exporters.stop();
        assert!(began.elapsed() < STOP_LIMIT + Duration::from_secs(1));
    }
}
