//! Exit codes of client commands, and the errors that they report.

use std::process::ExitCode;

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub use crate::client::is_connection_error;

use super::hints::hint;
use super::time::format_duration;
use super::{output, terminal};

/// Exit codes of client commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    TaskFailed = 1,
    /// The command line, or a file that it names, is not usable.
    Usage = 2,
    /// The server refused the call.
    Refused = 3,
    /// The server is not reachable, or the connection broke.
    Unreachable = 4,
    TaskCancelled = 5,
    TaskNotFinished = 6,
}

impl Exit {
    /// The code of a command with several outcomes.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Success => 0,
            Self::TaskNotFinished => 1,
            Self::TaskCancelled => 2,
            Self::TaskFailed => 3,
            Self::Refused => 4,
            Self::Unreachable => 5,
            Self::Usage => 6,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a client command returns.
pub type CommandResult = Result<Exit, CliError>;

#[derive(Debug)]
pub enum CliError {
    /// The command line, or a file that it names, is not usable.
    Usage(String),
    /// The call failed.
    Status(Box<Status>),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl CliError {
    /// Writes the error to stderr, as lines or as one line of JSON, and returns its exit code.
    pub fn report(&self, json: bool) -> Exit {
        if json {
            output::status(self.json());
        } else {
            for line in self.lines() {
                output::status(terminal::line(&line));
            }
        }
        self.exit()
    }

    /// The error for programs. Members without a value are left out.
    fn json(&self) -> Value {
        let mut error = match self {
            Self::Usage(text) => json!({"code": "USAGE", "message": text}),
            Self::Status(status) if is_connection_error(status) => {
                json!({"code": "UNREACHABLE", "message": cause_of(status), "hint": hint(status)})
            }
            Self::Status(status) => refusal_json(status),
        };
        if let Some(members) = error.as_object_mut() {
            members.retain(|_, value| !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)));
        }
        json!({ "error": error, "exitCode": self.exit() as u8 })
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Status(status) if is_connection_error(status) => Exit::Unreachable,
            Self::Status(_) => Exit::Refused,
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Usage(text) => vec![format!("error: {text}")],
            Self::Status(status) if is_connection_error(status) => {
                vec![format!("error: server unreachable: {}", cause_of(status)), format!("hint: {}", hint(status))]
            }
            Self::Status(status) => refusal_lines(status),
        }
    }
}

/// Why there was no answer.
fn cause_of(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(with_sources);
    cause.unwrap_or_else(|| status.message().to_owned())
}

fn refusal_json(status: &Status) -> Value {
    let details = status.get_error_details();
    let info = details.error_info();
    let violations = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
    let fields: Vec<_> =
        violations.map(|violation| json!({"field": violation.field, "problem": violation.description})).collect();
    let retry_after = details.retry_info().and_then(|retry| retry.retry_delay).map(|delay| delay.as_secs_f64());
    json!({
        "code": code_name(status.code()),
        "message": status.message(),
        "reason": info.map(|info| &info.reason),
        "metadata": info.map(|info| &info.metadata).filter(|metadata| !metadata.is_empty()),
        "fields": fields,
        "retryAfterSeconds": retry_after,
    })
}

/// The name of a code in the documentation of gRPC, such as NOT_FOUND.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for char in format!("{code:?}").chars() {
        if char.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(char.to_uppercase());
    }
    name
}

fn refusal_lines(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut lines = vec![match status.message() {
        "" => format!("error: {}", status.code().description()),
        message => format!("error: {message}"),
    }];
    match details.error_info() {
        Some(info) => lines.push(format!("reason: {}", info.reason)),
        None => lines.push(format!("code: {}", status.code())),
    }
    if status.code() == Code::Unimplemented && details.error_info().is_none() {
        lines.push("hint: what listens there does not serve this call: it may be the server's health port, or an older server; \
             correct the address in --server".to_owned());
    }
    if status.code() == Code::Unauthenticated {
        let hint = "pass a token or a certificate that is valid now (--token-file, LINESHAFT_TOKEN, --tls-cert)";
        lines.push(format!("hint: {hint}"));
    }
    for violation in details.bad_request().into_iter().flat_map(|bad| &bad.field_violations) {
        // The message of a status often repeats its first violation.
        let in_message = |text: &str| status.message().contains(text);
        if !in_message(&violation.field) || !in_message(&violation.description) {
            lines.push(format!("field: {}: {}", violation.field, violation.description));
        }
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        lines.push(format!("hint: try again in {}", format_duration(delay)));
    }
    lines
}

/// The error with its chain of sources: the reason for a rejected certificate is at the end of the chain.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_shows_reason_field_and_hint() {
        let mut details = ErrorDetails::with_error_info("QUEUE_FULL", "lineshaft.dev", []);
        details.add_bad_request_violation("retry.factor", "is 99, must be 1 to 10");
        details.set_retry_info(Some(Duration::from_secs(1)));
        let error = CliError::from(Status::with_error_details(Code::ResourceExhausted, "full", details));
        let expected = [
            "error: full",
            "reason: QUEUE_FULL",
            "field: retry.factor: is 99, must be 1 to 10",
            "hint: try again in 1s",
        ];
        assert_eq!(error.lines(), expected);
        assert_eq!(error.exit(), Exit::Refused);
        let expected = json!({
            "error": {
                "code": "RESOURCE_EXHAUSTED",
                "message": "full",
                "reason": "QUEUE_FULL",
                "fields": [{"field": "retry.factor", "problem": "is 99, must be 1 to 10"}],
                "retryAfterSeconds": 1.0,
            },
            "exitCode": 3,
        });
        assert_eq!(error.json(), expected);
    }

    #[test]
    fn a_field_that_the_message_names_with_its_problem_is_not_repeated() {
        let mut details = ErrorDetails::with_error_info("INVALID_FIELD", "lineshaft.dev", []);
        details.add_bad_request_violation("attempt", "is 7, but the task is at attempt 1");
        details.add_bad_request_violation("offset", "is -1, must not be negative");
        let message = "`attempt` is 7, but the task is at attempt 1 (and 1 more)";
        let error = CliError::from(Status::with_error_details(Code::InvalidArgument, message, details));
        let expected =
            [&format!("error: {message}"), "reason: INVALID_FIELD", "field: offset: is -1, must not be negative"];
        assert_eq!(error.lines(), expected);
    }

    #[test]
    fn unavailable_is_unreachable_unless_the_server_gives_a_reason() {
        let error = CliError::from(Status::unavailable("connection refused"));
        assert_eq!(error.exit(), Exit::Unreachable);
        let draining = ErrorDetails::with_error_info("DRAINING", "lineshaft.dev", []);
        let error = CliError::from(Status::with_error_details(Code::Unavailable, "stopping", draining));
        assert_eq!(error.exit(), Exit::Refused);
    }
}
