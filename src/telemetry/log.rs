//! The log of the server: lines on standard output.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::export::counts::Counts;
use super::export::rejections::Rejections;
use super::log_throttle::{self, LogThrottle};
use super::scope;
use crate::model::{Clock, SystemClock};

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `pretty` on a terminal, otherwise `json`.
    #[default]
    Auto,
    Pretty,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log filter {filter:?}: {reason}")]
    Filter { filter: String, reason: String },
    #[error("failed to install the log: it is already installed")]
    Installed,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub format: LogFormat,
    /// Level, or levels by module, such as `warn,lineshaft=debug`.
    pub filter: String,
    /// Level of messages about the export of telemetry (`OTEL_LOG_LEVEL`). Without it `filter` applies, and the
    /// messages of the OpenTelemetry libraries are off: this server logs the same events.
    pub export_level: Option<String>,
    /// Lines of one warning within ten seconds; 0: no limit.
    pub repeats_max: u32,
}

/// Where log records and other telemetry go, besides standard output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Export<'a> {
    pub logger: Option<&'a SdkLoggerProvider>,
    /// Of all signals; `None`: nothing is exported.
    pub counts: Option<&'a [Arc<Counts>; 3]>,
}

/// Starts the log of this process, and its export.
///
/// # Errors
/// [`LogError`] if the filter is invalid or the log was started before.
pub fn init(options: &Options, export: Export<'_>) -> Result<(), LogError> {
    let terminal = io::stdout().is_terminal();
    let subscriber = subscriber(options, export, terminal, io::stdout)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Installed)
}

/// # Errors
/// Why the filter is invalid.
pub fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    // Without this check a misspelt level such as `inof` would be taken for a module and turn the log off.
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let plain = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    let typo = filter.split(',').map(str::trim).filter(plain).find(|part| {
        !known.iter().any(|level| level.eq_ignore_ascii_case(part)) && !matches!(part.parse::<u8>(), Ok(0..=5))
    });
    if let Some(part) = typo {
        let levels = known.join(", ");
        return Err(format!("{part:?} is not a level; expected {levels}, or \"{part}=debug\" for a module"));
    }
    if filter.trim().is_empty() {
        return Err("must not be empty; use \"off\" to turn the log off".to_owned());
    }
    EnvFilter::builder().parse(filter).map_err(|error| error.to_string())
}

/// Of two directives for one target the later one applies.
fn filter(options: &Options) -> Result<EnvFilter, LogError> {
    let given = &options.filter;
    let invalid = |reason| LogError::Filter { filter: given.clone(), reason };
    parse(given).map_err(invalid)?;
    let all = match &options.export_level {
        Some(level) => format!("{given},opentelemetry={level},{EXPORT}={level}"),
        None => format!("opentelemetry=off,{given}"),
    };
    parse(&all).map_err(invalid)
}

/// Leaves out the spans around each call of a WebAssembly guest, which cost more than most calls.
fn is_cheap(metadata: &Metadata<'_>) -> bool {
    !(metadata.is_span() && metadata.target().starts_with("wasmtime_wasi"))
}

fn subscriber<W>(
    options: &Options,
    export: Export<'_>,
    terminal: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let json = match options.format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let is_exported =
        |metadata: &Metadata<'_>| !EXPORT_TARGETS.iter().any(|target| metadata.target().starts_with(target));
    let exported = export.logger.map(OpenTelemetryTracingBridge::new);
    let exported = exported.map(|layer| layer.with_filter(filter_fn(is_exported)));
    let exported = exported.map(|layer| Ok(layer.with_filter(filter(options)?))).transpose()?;
    let rejections = export.counts.map(|counts| Rejections { counts: counts.clone() });
    let rejections = rejections.map(|layer| layer.with_filter(filter_fn(Rejections::are_in)));
    let throttle = LogThrottle::new(options.repeats_max);
    let filter = filter(options)?;
    // The throttle has no filter of its own. Without a level for all layers it would enable the spans of libraries, which
    // cost more than a call. Rejections are warnings.
    let level = filter.max_level_hint().map_or(LevelFilter::TRACE, |level| level.max(LevelFilter::WARN));
    let registry = tracing_subscriber::registry()
        .with(level)
        .with(filter_fn(is_cheap))
        .with(throttle)
        .with(exported)
        .with(rejections);
    // Errors of a closed standard output cannot be reported: standard error may be closed as well.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let format = Format::default().with_timer(Rfc3339);
    Ok(if json {
        let format = format.json().flatten_event(true).with_current_span(true).with_span_list(false);
        Box::new(registry.with(lines.fmt_fields(JsonFields::new()).event_format(WithScope(format)).with_filter(filter)))
    } else {
        Box::new(
            registry.with(
                lines.with_ansi(terminal).event_format(WithScope(format.with_ansi(terminal))).with_filter(filter),
            ),
        )
    })
}

/// Targets of the exporters and their libraries. Exporting their messages would cause further ones.
const EXPORT_TARGETS: [&str; 8] = ["h2", "hyper", "hyper_util", "tonic", "tower", "rustls", "opentelemetry", EXPORT];

/// Target of messages about the export.
const EXPORT: &str = "lineshaft::telemetry::export";

/// Adds the fields of the current scope to the lines of another format.
struct WithScope<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithScope<F>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        let json = line.strip_prefix('{').and_then(|_| line.strip_suffix('}'));
        writer.write_str(json.unwrap_or(line))?;
        for (key, value) in scope_fields() {
            match json {
                Some(_) => write!(writer, ",\"{key}\":{value}")?,
                None => write!(writer, " {key}={value}")?,
            }
        }
        writeln!(writer, "{}", if json.is_some() { "}" } else { "" })
    }
}

/// The current scope and the number of omitted lines, as JSON values.
fn scope_fields() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let text = |text: &str| serde_json::Value::from(text).to_string();
    if let Some(scope) = scope::current() {
        if let Some(active) = scope.active_context().filter(|active| active.context.has_span()) {
            found.push(("trace_id", format!("\"{:032x}\"", active.context.trace_id)));
            found.push(("span_id", format!("\"{:016x}\"", active.context.span_id)));
        }
        if let Some(attempt) = scope.attempt() {
            found.push(("task", text(&attempt.task.to_string())));
            found.push(("attempt", attempt.number.to_string()));
            found.push(("pool", text(attempt.pool)));
            found.push(("worker", text(attempt.worker)));
        }
    }
    let omitted = log_throttle::omitted();
    if omitted > 0 {
        found.push(("left_out", omitted.to_string()));
    }
    found
}

/// UTC with microseconds, such as `2026-01-31T12:00:00.000000Z`.
struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", SystemClock.now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_sdk::logs::InMemoryLogExporter;
    use parking_lot::Mutex;

    use super::*;
    use crate::model::{TaskId, TraceContext};
    use crate::telemetry::scope::{ActiveContext, AttemptName, Entered, Scope};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(options: &Options, terminal: bool, write: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(options, Export::default(), terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, write);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    fn options(format: LogFormat, filter: &str) -> Options {
        Options { format, filter: filter.to_owned(), export_level: None, repeats_max: 3 }
    }

    fn logged(format: LogFormat, filter: &str, terminal: bool) -> String {
        written(&options(format, filter), terminal, || {
            let _span = tracing::info_span!("attempt", task = "t-1").entered();
            tracing::info!(pool = "default", "started");
            tracing::debug!("detail");
        })
    }

    #[test]
    fn spans_of_libraries_that_nobody_reads_are_not_created() {
        for filter in ["info", "error", "warn,lineshaft=info"] {
            written(&options(LogFormat::Json, filter), false, || {
                for span in [tracing::debug_span!(target: "h2", "a"), tracing::trace_span!(target: "h2", "b")] {
                    assert!(span.is_disabled(), "{filter}: {span:?}");
                }
            });
        }
    }

    struct AttemptScope(TaskId, ActiveContext);

    impl Scope for AttemptScope {
        fn active_context(&self) -> Option<&ActiveContext> {
            Some(&self.1)
        }

        fn attempt(&self) -> Option<AttemptName<'_>> {
            Some(AttemptName { task: &self.0, number: 2, pool: "reports", worker: "reports/PoolWorker-1" })
        }
    }

    fn enter_attempt_scope() -> Entered {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let active = ActiveContext::new(Arc::new(TraceContext::parse(Some(parent), None, None).unwrap()));
        scope::enter(Arc::new(AttemptScope(TaskId::parse("t-7").unwrap(), active)))
    }

    #[test]
    fn a_line_has_the_fields_of_the_current_scope() {
        let write = || {
            let _entered = enter_attempt_scope();
            tracing::info!("hello \"you\"");
        };
        let text = written(&options(LogFormat::Json, "info"), false, write);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "hello \"you\"");
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(line["span_id"], "b7ad6b7169203331");
        assert_eq!((&line["task"], &line["attempt"]), (&"t-7".into(), &2.into()));
        assert_eq!((&line["pool"], &line["worker"]), (&"reports".into(), &"reports/PoolWorker-1".into()));
        let pretty = written(&options(LogFormat::Pretty, "info"), false, write);
        assert!(pretty.contains(" task=\"t-7\" attempt=2 "), "{pretty}");
    }

    #[test]
    fn messages_about_the_export_are_written_and_not_exported() {
        let exporter = InMemoryLogExporter::default();
        let logger = SdkLoggerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let lines = Lines::default();
        let writer = lines.clone();
        let options = options(LogFormat::Json, "info");
        let subscriber =
            subscriber(&options, Export { logger: Some(&logger), counts: None }, false, move || writer.clone())
                .unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "lineshaft::telemetry::export::counts", "telemetry dropped");
            tracing::warn!("something else");
        });
        assert_eq!(String::from_utf8(lines.0.lock().clone()).unwrap().lines().count(), 2);
        assert_eq!(exporter.get_emitted_logs().unwrap().len(), 1, "each lost record would cause another one");
    }

    #[test]
    fn repeated_warnings_are_limited_and_information_is_not() {
        let text = written(&options(LogFormat::Json, "info"), false, || {
            for _ in 0..10 {
                tracing::warn!("again");
            }
            for _ in 0..10 {
                tracing::info!("news");
            }
        });
        assert_eq!((text.matches("again").count(), text.matches("news").count()), (3, 10));
        let all = Options { repeats_max: 0, ..options(LogFormat::Json, "info") };
        assert_eq!(written(&all, false, || (0..10).for_each(|_| tracing::warn!("again"))).lines().count(), 10);
    }

    #[test]
    fn each_incident_is_logged() {
        let text = written(&options(LogFormat::Json, "info"), false, || {
            (0..10)
                .for_each(|number| tracing::error!(name: log_throttle::INCIDENT, incident = number, "internal error"));
        });
        assert_eq!(text.lines().count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_line_has_the_number_of_omitted_lines() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            subscriber(&options(LogFormat::Json, "info"), Export::default(), false, move || writer.clone()).unwrap();
        let _default = tracing::subscriber::set_default(subscriber);
        let warn = |times: usize| (0..times).for_each(|_| tracing::warn!("again"));
        warn(8);
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
        warn(1);
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["left_out"], 5);
    }

    #[test]
    fn without_a_terminal_a_line_is_a_json_object_with_an_rfc_3339_time() {
        let text = logged(LogFormat::Auto, "info", false);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "started");
        assert_eq!(line["pool"], "default");
        assert_eq!(line["span"]["task"], "t-1");
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && humantime::parse_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        assert!(logged(LogFormat::Auto, "info", true).contains("\u{1b}["));
        let plain = logged(LogFormat::Pretty, "info", false);
        assert!(plain.contains("started") && !plain.contains("\u{1b}["), "{plain}");
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        assert_eq!(logged(LogFormat::Json, "off", false), "");
        assert_eq!(logged(LogFormat::Json, "warn,lineshaft=debug", false).lines().count(), 2);
    }

    #[test]
    fn messages_about_the_export_have_a_level_of_their_own() {
        let write = || {
            tracing::warn!(target: "opentelemetry_sdk", "library");
            tracing::debug!(target: EXPORT, "exporter");
            tracing::info!("server");
        };
        let lines = |filter, export_level: Option<&str>| {
            let text = written(
                &Options { export_level: export_level.map(str::to_owned), ..options(LogFormat::Json, filter) },
                false,
                write,
            );
            ["library", "exporter", "server"].map(|word| text.contains(word))
        };
        assert_eq!(lines("info", None), [false, false, true]);
        assert_eq!(lines("debug,opentelemetry=warn", None), [true, true, true]);
        assert_eq!(lines("info", Some("debug")), [true, true, true]);
        assert_eq!(lines("debug", Some("off")), [false, false, true]);
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for filter in ["info", "warn,lineshaft=debug", "off", "lineshaft::pool=trace,info", "[attempt{task}]=debug"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "inof", "lineshaft=loud", "warn,debgu"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
    }
}
