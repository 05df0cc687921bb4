//! What tasks wrote, as log records of their attempts, when the operator wants that.

use std::sync::{Arc, OnceLock};

use opentelemetry::Key;
use opentelemetry::logs::{LogRecord as _, Logger as _, Severity};
use opentelemetry_sdk::logs::SdkLogger;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scope::{self, Scope};
use crate::model::{Captured, Output};

/// Records of one stream of one attempt; more are left out, and their number is told.
const LINES_MAX: usize = 1_000;

/// What of a task's output is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskLogs {
    /// Nothing.
    #[default]
    None,
    /// Standard error.
    Stderr,
    /// Standard output as well.
    All,
}

static LOGGER: OnceLock<(SdkLogger, TaskLogs)> = OnceLock::new();

/// Output is exported from now on. A second call changes nothing.
pub fn install(logger: SdkLogger, which: TaskLogs) {
    if which != TaskLogs::None {
        let _ = LOGGER.set((logger, which));
    }
}

/// Exports what an attempt wrote, as far as that was kept.
pub fn export(attempt: Arc<dyn Scope>, output: &Output) {
    let Some((logger, which)) = LOGGER.get() else { return };
    let _entered = scope::enter(attempt);
    write(logger, "stderr", &output.stderr);
    if *which == TaskLogs::All {
        write(logger, "stdout", &output.stdout);
    }
}

fn write(logger: &SdkLogger, stream: &'static str, captured: &Captured) {
    for line in lines(captured) {
        let mut record = logger.create_log_record();
        record.set_severity_number(Severity::Info);
        record.set_target("lineshaft::task");
        record.add_attribute(Key::from_static_str("log.iostream"), stream);
        record.set_body(line.into());
        logger.emit(record);
    }
}

fn lines(captured: &Captured) -> Vec<String> {
    let kept = (captured.head.len() + captured.tail.len()) as u64;
    let missing = captured.total.saturating_sub(kept);
    let text = if missing == 0 {
        // The head may end within a line, or within a character.
        String::from_utf8_lossy(&[&captured.head[..], &captured.tail].concat()).into_owned()
    } else {
        let (head, tail) = (String::from_utf8_lossy(&captured.head), String::from_utf8_lossy(&captured.tail));
        format!("{head}\n({missing} bytes were not kept)\n{tail}")
    };
    let mut found: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if found.len() > LINES_MAX {
        let more = found.len() - LINES_MAX;
        found.truncate(LINES_MAX);
        found.push(format!("({more} more lines)"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_and_what_is_missing_is_told() {
        let whole = Captured { head: "a\n\nb".into(), tail: "c\n".into(), total: 6 };
        assert_eq!(lines(&whole), ["a", "bc"]);
        let cut = Captured { head: "a\n".into(), tail: "z".into(), total: 13 };
        assert_eq!(lines(&cut), ["a", "(10 bytes were not kept)", "z"]);
        let many = Captured { head: "x\n".repeat(1_002).into(), tail: "".into(), total: 2_004 };
        assert_eq!(lines(&many).last().map(String::as_str), Some("(2 more lines)"));
    }
}
