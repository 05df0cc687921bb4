//! Findings, and how they are told.

use std::process::ExitCode;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// It works, but not well, or not for long.
    Warn,
    /// A server cannot start, or would not keep its promises.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub check: &'static str,
    pub state: State,
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub fn well(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, state: State::Ok, text: text.into(), advice: None }
    }

    pub fn doubtful(check: &'static str, text: impl Into<String>) -> Self {
        Self { state: State::Warn, ..Self::well(check, text) }
    }

    pub fn bad(check: &'static str, text: impl Into<String>) -> Self {
        Self { state: State::Fail, ..Self::well(check, text) }
    }

    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Tells each finding as it is made; some take a second.
pub(super) struct Report {
    json: bool,
    say: fn(&str),
    counts: [usize; 3],
}

impl Report {
    pub fn new(json: bool, say: fn(&str)) -> Self {
        Self { json, say, counts: [0; 3] }
    }

    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }

    pub fn add(&mut self, finding: Finding) {
        self.counts[finding.state as usize] += 1;
        if self.json {
            return (self.say)(&serde_json::to_string(&finding).expect("texts are JSON"));
        }
        let state = match finding.state {
            State::Ok => "ok",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        (self.say)(&format!("{state:<5} {:<14} {}", finding.check, finding.text));
        if let Some(advice) = finding.advice {
            (self.say)(&format!("{:<20} → {advice}", ""));
        }
    }

    /// The exit code: 1 when anything failed.
    pub fn finish(self) -> ExitCode {
        let [well, doubtful, bad] = self.counts;
        if !self.json {
            (self.say)(&format!("\n{well} well, {doubtful} doubtful, {bad} bad"));
        }
        ExitCode::from(u8::from(bad > 0))
    }
}
