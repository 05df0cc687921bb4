//! The server's log: lines on standard output, which nothing else is written to.

use std::fmt;
use std::io::{self, IsTerminal};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::log_throttle::{self, LogThrottle};
use super::scope;
use crate::model::{Clock, SystemClock};

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object each line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log filter {filter:?}: {reason}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has a log already.
    #[error("failed to install the log: one is installed already")]
    Installed,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shape of a line.
    pub format: LogFormat,
    /// Level, or levels by module.
    pub filter: String,
    /// Level of what is said about the export of telemetry (`OTEL_LOG_LEVEL`); without one, `filter` decides, and
    /// the libraries of OpenTelemetry say nothing that this server does not say better.
    pub export_level: Option<&'static str>,
    /// Lines of one warning within ten seconds; 0: no bound.
    pub repeats_max: u32,
}

/// Starts the log of this process, and its export where there is a `logger`; call it once.
///
/// # Errors
/// [`LogError`] when the filter is not valid or a log was started before.
pub fn init(options: &Options, logger: Option<&SdkLoggerProvider>) -> Result<(), LogError> {
    let terminal = io::stdout().is_terminal();
    let subscriber = subscriber(options, logger, terminal, io::stdout)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Installed)
}

/// Whether a filter such as `info` or `warn,lineshaft=debug` can be read.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    // Without this, a typing error such as `inof` would name a module and silence everything.
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let plain = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    let typo = filter.split(',').map(str::trim).filter(plain).find(|part| {
        !known.iter().any(|level| level.eq_ignore_ascii_case(part)) && !matches!(part.parse::<u8>(), Ok(0..=5))
    });
    if let Some(part) = typo {
        let levels = known.join(", ");
        return Err(format!("{part:?} is not a level; those are {levels}; for a module write \"{part}=debug\""));
    }
    if filter.trim().is_empty() {
        return Err("must not be empty; use \"off\" for no log".to_owned());
    }
    EnvFilter::builder().parse(filter).map_err(|error| error.to_string())
}

/// Of two directives for one target the later one counts.
fn filter(options: &Options) -> Result<EnvFilter, LogError> {
    let said = &options.filter;
    let refused = |reason| LogError::Filter { filter: said.clone(), reason };
    parse(said).map_err(refused)?;
    let all = match options.export_level {
        Some(level) => format!("{said},opentelemetry={level},{EXPORT}={level}"),
        None => format!("opentelemetry=off,{said}"),
    };
    parse(&all).map_err(refused)
}

fn subscriber<W>(
    options: &Options,
    logger: Option<&SdkLoggerProvider>,
    terminal: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(options)?;
    let json = match options.format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let exported = logger.map(|logger| {
        let told = |metadata: &Metadata<'_>| !OWN.iter().any(|target| metadata.target().starts_with(target));
        OpenTelemetryTracingBridge::new(logger).with_filter(filter_fn(told))
    });
    let registry =
        tracing_subscriber::registry().with(filter).with(LogThrottle::new(options.repeats_max)).with(exported);
    // To complain about a reader that has gone would be a panic where nobody reads complaints either.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    Ok(if json {
        Box::new(registry.with(lines.fmt_fields(JsonFields::new()).event_format(JsonLine::default())))
    } else {
        Box::new(
            registry.with(
                lines
                    .with_ansi(terminal)
                    .event_format(PrettyLine(Format::default().with_timer(Rfc3339).with_ansi(terminal))),
            ),
        )
    })
}

/// Exporters, and what they need to work: to export what they say would make them say more.
const OWN: [&str; 8] = ["h2", "hyper", "hyper_util", "tonic", "tower", "rustls", "opentelemetry", EXPORT];

/// Where exporters speak from.
const EXPORT: &str = "lineshaft::telemetry::export";

/// One JSON object each line.
struct JsonLine(Format<Json, Rfc3339>);

impl Default for JsonLine {
    fn default() -> Self {
        let format = Format::default().json().flatten_event(true).with_current_span(true).with_span_list(false);
        Self(format.with_timer(Rfc3339))
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> FormatEvent<S, JsonFields> for JsonLine {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let object = line.trim_end();
        let Some(open) = object.strip_suffix('}') else { return writeln!(writer, "{object}") };
        writer.write_str(open)?;
        for (key, value) in on_behalf() {
            write!(writer, ",\"{key}\":{value}")?;
        }
        writeln!(writer, "}}")
    }
}

/// For people.
struct PrettyLine(Format<Full, Rfc3339>);

impl<S: Subscriber + for<'l> LookupSpan<'l>> FormatEvent<S, DefaultFields> for PrettyLine {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end())?;
        for (key, value) in on_behalf() {
            write!(writer, " {key}={value}")?;
        }
        writeln!(writer)
    }
}

/// On whose behalf the line is written, as JSON values.
fn on_behalf() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let text = |text: &str| serde_json::Value::from(text).to_string();
    if let Some(scope) = scope::current() {
        if let Some(place) = scope.active_context().filter(|place| place.context.has_span()) {
            found.push(("trace_id", format!("\"{:032x}\"", place.context.trace_id)));
            found.push(("span_id", format!("\"{:016x}\"", place.context.span_id)));
        }
        if let Some(attempt) = scope.attempt() {
            found.push(("task", text(&attempt.task.to_string())));
            found.push(("attempt", attempt.number.to_string()));
            found.push(("pool", text(attempt.pool)));
            found.push(("worker", text(attempt.worker)));
        }
    }
    let left_out = log_throttle::left_out();
    if left_out > 0 {
        found.push(("left_out", left_out.to_string()));
    }
    found
}

/// Wall time in UTC with microseconds, `2026-01-31T12:00:00.000000Z`.
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

    fn written(options: &Options, terminal: bool, say: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(options, None, terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, say);
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

    struct OnBehalf(TaskId, ActiveContext);

    impl Scope for OnBehalf {
        fn active_context(&self) -> Option<&ActiveContext> {
            Some(&self.1)
        }

        fn attempt(&self) -> Option<AttemptName<'_>> {
            Some(AttemptName { task: &self.0, number: 2, pool: "reports", worker: "reports/PoolWorker-1" })
        }
    }

    fn on_behalf_of_a_task() -> Entered {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let place = ActiveContext::new(Arc::new(TraceContext::parse(Some(parent), None, None).unwrap()));
        scope::enter(Arc::new(OnBehalf(TaskId::parse("t-7").unwrap(), place)))
    }

    #[test]
    fn a_line_tells_on_whose_behalf_it_is_written() {
        let say = || {
            let _entered = on_behalf_of_a_task();
            tracing::info!("hello \"you\"");
        };
        let text = written(&options(LogFormat::Json, "info"), false, say);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "hello \"you\"");
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(line["span_id"], "b7ad6b7169203331");
        assert_eq!((&line["task"], &line["attempt"]), (&"t-7".into(), &2.into()));
        assert_eq!((&line["pool"], &line["worker"]), (&"reports".into(), &"reports/PoolWorker-1".into()));
        let pretty = written(&options(LogFormat::Pretty, "info"), false, say);
        assert!(pretty.contains(" task=\"t-7\" attempt=2 "), "{pretty}");
    }

    #[test]
    fn what_exporters_say_about_themselves_is_written_and_not_exported() {
        let exporter = InMemoryLogExporter::default();
        let logger = SdkLoggerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let lines = Lines::default();
        let writer = lines.clone();
        let options = options(LogFormat::Json, "info");
        let subscriber = subscriber(&options, Some(&logger), false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "lineshaft::telemetry::export::counts", "telemetry dropped");
            tracing::warn!("something else");
        });
        assert_eq!(String::from_utf8(lines.0.lock().clone()).unwrap().lines().count(), 2);
        assert_eq!(exporter.get_emitted_logs().unwrap().len(), 1, "each that is lost would make another one");
    }

    #[test]
    fn a_warning_that_repeats_itself_is_left_out_and_counted() {
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

    #[tokio::test(start_paused = true)]
    async fn the_next_line_tells_how_many_were_left_out() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(&options(LogFormat::Json, "info"), None, false, move || writer.clone()).unwrap();
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
    fn away_from_a_terminal_a_line_is_one_json_object_with_an_rfc_3339_time() {
        let text = logged(LogFormat::Auto, "info", false);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "started");
        assert_eq!(line["pool"], "default");
        assert_eq!(line["span"]["task"], "t-1");
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && humantime::parse_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn on_a_terminal_a_line_is_for_people_and_elsewhere_it_has_no_colours() {
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
    fn what_exporters_say_has_a_level_of_its_own() {
        let say = || {
            tracing::warn!(target: "opentelemetry_sdk", "library");
            tracing::debug!(target: EXPORT, "exporter");
            tracing::info!("server");
        };
        let lines = |filter, export_level| {
            let text = written(&Options { export_level, ..options(LogFormat::Json, filter) }, false, say);
            ["library", "exporter", "server"].map(|word| text.contains(word))
        };
        assert_eq!(lines("info", None), [false, false, true]);
        assert_eq!(lines("debug,opentelemetry=warn", None), [true, true, true]);
        assert_eq!(lines("info", Some("debug")), [true, true, true]);
        assert_eq!(lines("debug", Some("off")), [false, false, true]);
    }

    #[test]
    fn a_misspelt_level_is_refused_instead_of_silencing_everything() {
        for filter in ["info", "warn,lineshaft=debug", "off", "lineshaft::pool=trace,info", "[attempt{task}]=debug"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "inof", "lineshaft=loud", "warn,debgu"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
    }
}
