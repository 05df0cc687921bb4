//! The log: lines on standard error, so that standard output stays for data.

use std::fmt;
use std::io::{self, IsTerminal};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

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

/// Starts the log of this process; call it once.
///
/// # Errors
/// [`LogError`] when the filter is not valid or a log was started before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let terminal = io::stderr().is_terminal();
    let subscriber = subscriber(format, filter, terminal, io::stderr)?;
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

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    terminal: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse(filter).map_err(|reason| LogError::Filter { filter: filter.to_owned(), reason })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_timer(Rfc3339).with_writer(writer);
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    Ok(if json {
        Box::new(builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
    } else {
        Box::new(builder.with_ansi(terminal).finish())
    })
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

    use parking_lot::Mutex;

    use super::*;

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

    fn logged(format: LogFormat, filter: &str, terminal: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, filter, terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("attempt", task = "t-1").entered();
            tracing::info!(pool = "default", "started");
            tracing::debug!("detail");
        });
        String::from_utf8(lines.0.lock().clone()).unwrap()
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
    fn a_misspelt_level_is_refused_instead_of_silencing_everything() {
        for filter in ["info", "warn,lineshaft=debug", "off", "lineshaft::pool=trace,info", "[attempt{task}]=debug"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "inof", "lineshaft=loud", "warn,debgu"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
    }
}
