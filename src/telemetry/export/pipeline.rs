//! The exporters of this process, from start to shutdown.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{self as sdk_logs, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::{self as sdk_trace, BatchSpanProcessor, SdkTracerProvider};
use tokio::time::Instant;

use crate::model::SecretUrl;
use crate::telemetry::metrics::{Builder, Histograms};

use super::attempt_attributes::AttemptAttributes;
use super::counts::{Bounded, Counted, Counts, Totals};
use super::otlp::{self, ExportError};
use super::resource;
use super::settings::{Settings, Signal, Variables};

/// Name of the instrumentation scope of spans and log records.
pub const SCOPE: &str = "lineshaft";

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

pub struct Pipeline {
    settings: Settings,
    resource: Resource,
    counts: [Arc<Counts>; 3],
    /// Drives gRPC connections. Its one worker thread is never blocked by an export.
    runtime: Option<tokio::runtime::Runtime>,
    tracer_provider: Option<SdkTracerProvider>,
    logger_provider: Option<SdkLoggerProvider>,
    shutdown_hooks: Vec<Box<dyn FnOnce() + Send>>,
}

impl Pipeline {
    /// Starts the exporters of traces and logs; without any, no thread is started.
    ///
    /// # Errors
    /// [`ExportError`] for unusable certificates. An unreachable collector is no error.
    pub fn start(settings: Settings, variables: &Variables, instance: &str) -> Result<Self, ExportError> {
        let mut pipeline = Self {
            resource: resource::resource(variables, instance),
            counts: Signal::ALL.map(|signal| Arc::new(Counts::new(signal))),
            runtime: None,
            tracer_provider: None,
            logger_provider: None,
            shutdown_hooks: Vec::new(),
            settings,
        };
        if !pipeline.settings.is_silent() {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(1).thread_name("telemetry").enable_all().build();
            let runtime = runtime.map_err(ExportError::Runtime)?;
            let inside = runtime.enter();
            pipeline.open_traces()?;
            pipeline.open_logs()?;
            drop(inside);
            pipeline.runtime = Some(runtime);
        }
        Ok(pipeline)
    }

    fn open_traces(&mut self) -> Result<(), ExportError> {
        let to = self.settings.destinations(Signal::Traces);
        if to.collector.is_none() && !to.console {
            return Ok(());
        }
        let mut builder = SdkTracerProvider::builder().with_resource(self.resource.clone());
        if let Some(collector) = &to.collector {
            let (counts, queue_max) = (&self.counts[Signal::Traces as usize], self.settings.span_queue_max);
            let exporter = Counted::new(otlp::spans(collector, counts)?, counts.clone());
            let config = sdk_trace::BatchConfigBuilder::default().with_max_queue_size(queue_max);
            let config = config.with_scheduled_delay(self.settings.span_delay).build();
            let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
            builder = builder.with_span_processor(Bounded::new(processor, counts.clone(), queue_max));
        }
        if to.console {
            builder = builder.with_batch_exporter(opentelemetry_stdout::SpanExporter::default());
        }
        let provider = builder.build();
        self.tracer_provider = Some(provider.clone());
        self.at_shutdown(move || drop(provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)));
        Ok(())
    }

    fn open_logs(&mut self) -> Result<(), ExportError> {
        let Some(collector) = &self.settings.destinations(Signal::Logs).collector else { return Ok(()) };
        let (counts, queue_max) = (&self.counts[Signal::Logs as usize], self.settings.log_queue_max);
        let exporter = Counted::new(otlp::logs(collector, counts)?, counts.clone());
        let config = sdk_logs::BatchConfigBuilder::default().with_max_queue_size(queue_max);
        let config = config.with_scheduled_delay(self.settings.log_delay).build();
        let processor = BatchLogProcessor::builder(exporter).with_batch_config(config).build();
        let builder = SdkLoggerProvider::builder().with_resource(self.resource.clone());
        let builder = builder.with_log_processor(AttemptAttributes);
        let provider = builder.with_log_processor(Bounded::new(processor, counts.clone(), queue_max)).build();
        self.logger_provider = Some(provider.clone());
        self.at_shutdown(move || drop(provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)));
        Ok(())
    }

    /// Metrics with the readers that export them. Pass the shutdown of their providers to
    /// [`Pipeline::at_shutdown`].
    pub fn metrics(&self) -> Result<Builder, ExportError> {
        let mut builder = Builder::new(self.resource.clone()).exemplars(self.settings.exemplars);
        let (to, counts) = (self.settings.destinations(Signal::Metrics), &self.counts[Signal::Metrics as usize]);
        let interval = self.settings.metric_interval;
        if let (Some(collector), Some(runtime)) = (&to.collector, &self.runtime) {
            let _inside = runtime.enter();
            let exporter = Counted::new(otlp::metrics(collector, counts)?, counts.clone());
            let exponential = self.settings.exponential_histograms;
            let histograms = if exponential { Histograms::Exponential } else { Histograms::Buckets };
            builder = builder.reader(PeriodicReader::builder(exporter).with_interval(interval).build(), histograms);
        }
        if to.console {
            let exporter = opentelemetry_stdout::MetricExporter::default();
            let reader = PeriodicReader::builder(exporter).with_interval(interval).build();
            builder = builder.reader(reader, Histograms::Buckets);
        }
        Ok(builder)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// By [`Signal`].
    pub fn counts(&self) -> &[Arc<Counts>; 3] {
        &self.counts
    }

    /// `None` if traces are not exported.
    pub fn tracer_provider(&self) -> Option<&SdkTracerProvider> {
        self.tracer_provider.as_ref()
    }

    /// `None` if logs are not exported.
    pub fn logger_provider(&self) -> Option<&SdkLoggerProvider> {
        self.logger_provider.as_ref()
    }

    /// Adds work for the shutdown. It may block and is abandoned after three seconds.
    pub fn at_shutdown(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.shutdown_hooks.push(Box::new(hook));
    }

    pub fn summary(&self) -> String {
        let mut exported = Vec::new();
        for signal in Signal::ALL {
            let to = self.settings.destinations(signal);
            let collector = to
                .collector
                .as_ref()
                .map(|collector| format!("{} ({})", SecretUrl::from(&*collector.endpoint), collector.protocol.name()));
            let console = to.console.then(|| "standard output".to_owned());
            let all: Vec<String> = collector.into_iter().chain(console).collect();
            if !all.is_empty() {
                exported.push(format!("{} to {}", signal.name(), all.join(" and ")));
            }
        }
        if !exported.is_empty() {
            return format!("exporting {}", exported.join(", "));
        }
        if self.settings.prometheus.is_some() {
            return "no telemetry is exported; Prometheus can scrape /metrics".to_owned();
        }
        "no telemetry is exported; set OTEL_EXPORTER_OTLP_ENDPOINT to export it".to_owned()
    }

    /// Exports what is left, for three seconds at most. Blocks; must not be called on a runtime.
    pub fn shutdown(self) {
        let (done, ended) = mpsc::channel();
        let hooks = self.shutdown_hooks.len();
        for hook in self.shutdown_hooks {
            let done = done.clone();
            let thread = std::thread::Builder::new().name("telemetry-stop".to_owned());
            // Without a thread the sender is dropped, and nothing waits for the hook.
            let _ = thread.spawn(move || {
                hook();
                let _ = done.send(());
            });
        }
        drop(done);
        let (began, timeout) = (Instant::now(), SHUTDOWN_TIMEOUT);
        for _ in 0..hooks {
            let result = ended.recv_timeout(timeout.saturating_sub(began.elapsed()));
            if result == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::warn!(?timeout, "gave up on the last exports of telemetry: the collector is too slow");
                break;
            }
        }
        if let Some(runtime) = self.runtime {
            runtime.shutdown_background();
        }
        for counts in &self.counts {
            let (Totals { exported, queue_full, failed }, queued) = (counts.totals(), counts.queued());
            if queue_full + failed + queued > 0 {
                let signal = counts.signal.name();
                tracing::warn!(signal, exported, queue_full, failed, queued, "telemetry was lost");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(variables: &[(&str, &str)]) -> Result<Pipeline, ExportError> {
        let variables: Variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Pipeline::start(Settings::read(&variables, "", ""), &variables, "i")
    }

    #[test]
    fn without_settings_nothing_is_started() {
        let pipeline = pipeline(&[]).unwrap();
        assert!(pipeline.runtime.is_none() && pipeline.tracer_provider.is_none() && pipeline.logger_provider.is_none());
        assert!(pipeline.summary().starts_with("no telemetry is exported; set"));
        pipeline.shutdown();
        let scraped = self::pipeline(&[("OTEL_METRICS_EXPORTER", "prometheus")]).unwrap().summary();
        assert_eq!(scraped, "no telemetry is exported; Prometheus can scrape /metrics");
    }

    #[test]
    fn the_summary_names_destinations_without_secrets() {
        let pipeline = pipeline(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://me:secret@127.0.0.1:9/base?key=secret"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://127.0.0.1:4317"),
            ("OTEL_TRACES_EXPORTER", "otlp,console"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ]);
        let line = "exporting traces to http://(hidden)@127.0.0.1:9/base?(hidden) (http/protobuf) and standard output, logs to \
                    http://127.0.0.1:4317 (grpc)";
        assert_eq!(pipeline.unwrap().summary(), line);
    }

    #[test]
    fn an_error_names_the_certificate_that_cannot_be_read() {
        let no_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let [all, own, key] = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"];
        for endpoint in ["https://c:4317", "https://c:4318"] {
            for wrong in [&[(all, "/no/such.pem")][..], &[(all, no_pem)], &[(own, no_pem), (key, no_pem)]] {
                let named: Vec<_> =
                    wrong.iter().map(|(name, path)| (format!("OTEL_EXPORTER_OTLP_{name}"), *path)).collect();
                let mut variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
                variables.extend(named.iter().map(|(name, path)| (name.as_str(), *path)));
                let error = pipeline(&variables).err().unwrap().to_string();
                assert!(error.contains(wrong[0].1), "{error}");
            }
        }
    }

    #[test]
    fn shutdown_abandons_a_hook_that_never_ends() {
        let mut pipeline = pipeline(&[]).unwrap();
        let (_hold, forever) = mpsc::channel::<()>();
        pipeline.at_shutdown(move || forever.recv().unwrap_or_default());
        let began = Instant::now();
        pipeline.shutdown();
        assert!(began.elapsed() < SHUTDOWN_TIMEOUT + Duration::from_secs(1));
    }
}
