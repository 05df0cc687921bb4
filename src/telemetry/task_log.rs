//! Exports the output of tasks as log records, if `telemetry.task_logs` is set.

use std::sync::{Arc, OnceLock};

use opentelemetry::Key;
use opentelemetry::logs::{LogRecord as _, Logger as _, Severity};
use opentelemetry_sdk::logs::SdkLogger;
use opentelemetry_semantic_conventions::attribute::LOG_IOSTREAM;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scope::{self, Scope};
use crate::model::{Captured, Output};

/// Records of one stream of one attempt; a last record has the number of omitted lines.
const LINES_MAX: usize = 1_000;

/// The exported output of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskLogs {
    /// No output.
    #[default]
    None,
    /// Standard error.
    Stderr,
    /// Standard error and standard output.
    All,
}

static LOGGER: OnceLock<(SdkLogger, TaskLogs)> = OnceLock::new();

/// Exports output for the rest of the process. A second call changes nothing.
pub fn install(logger: SdkLogger, which: TaskLogs) {
    if which != TaskLogs::None {
        let _ = LOGGER.set((logger, which));
    }
}

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
        record.add_attribute(Key::from_static_str(LOG_IOSTREAM), stream);
        record.set_body(line.into());
        logger.emit(record);
    }
}

fn lines(captured: &Captured) -> Vec<String> {
    let kept = (captured.head.len() + captured.tail.len()) as u64;
    let missing = captured.total.saturating_sub(kept);
    let text = if missing == 0 {
        // The head may end inside a line or a character.
        String::from_utf8_lossy(&[&captured.head[..], &captured.tail].concat()).into_owned()
    } else {
        let (head, tail) = (String::from_utf8_lossy(&captured.head), String::from_utf8_lossy(&captured.tail));
        format!("{head}\n({missing} bytes omitted)\n{tail}")
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
    fn output_is_split_into_lines_and_omissions_are_marked() {
        let whole = Captured { head: "a\n\nb".into(), tail: "c\n".into(), total: 6 };
        assert_eq!(lines(&whole), ["a", "bc"]);
        let cut = Captured { head: "a\n".into(), tail: "z".into(), total: 13 };
        assert_eq!(lines(&cut), ["a", "(10 bytes omitted)", "z"]);
        let many = Captured { head: "x\n".repeat(1_002).into(), tail: "".into(), total: 2_004 };
        assert_eq!(lines(&many).last().map(String::as_str), Some("(2 more lines)"));
    }
}
