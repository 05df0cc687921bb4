//! Findings and their output.

use std::process::ExitCode;

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// A server works, but not well or not for long.
    Warn,
    /// A server cannot start, or cannot keep its guarantees.
    Fail,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub check: &'static str,
    pub state: State,
    pub text: String,
    /// How to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, state: State::Ok, text: text.into(), advice: None }
    }

    pub fn warning(check: &'static str, text: impl Into<String>) -> Self {
        Self { state: State::Warn, ..Self::ok(check, text) }
    }

    pub fn failure(check: &'static str, text: impl Into<String>) -> Self {
        Self { state: State::Fail, ..Self::ok(check, text) }
    }

    pub fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Prints each finding at once, because some checks take a second.
pub(super) struct Report {
    json: bool,
    print: fn(&str),
    counts: [usize; 3],
}

impl Report {
    pub fn new(json: bool, print: fn(&str)) -> Self {
        Self { json, print, counts: [0; 3] }
    }

    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }

    pub fn add(&mut self, finding: Finding) {
        self.counts[finding.state as usize] += 1;
        if self.json {
            return (self.print)(&serde_json::to_string(&finding).expect("a finding is serializable"));
        }
        let state = match finding.state {
            State::Ok => "ok",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        (self.print)(&format!("{state:<5} {:<14} {}", finding.check, finding.text));
        if let Some(advice) = finding.advice {
            (self.print)(&format!("{:<20} → {advice}", ""));
        }
    }

    /// Prints the summary. The exit code is 1 if any check failed.
    pub fn finish(self) -> ExitCode {
        let [ok, warnings, failures] = self.counts;
        if !self.json {
            (self.print)(&format!(
                "\n{ok} ok, {warnings} {}, {failures} failed",
                if warnings == 1 { "warning" } else { "warnings" }
            ));
        }
        ExitCode::from(u8::from(failures > 0))
    }
}
