//! Exit codes of client commands, and the errors that they report.

use std::process::ExitCode;

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
    /// Writes the error to stderr and returns its exit code.
    pub fn report(&self) -> Exit {
        for line in self.lines() {
            output::status(terminal::line(&line));
        }
        self.exit()
    }

    fn exit(&self) -> Exit {
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
                let cause = std::error::Error::source(&**status).map(with_sources);
                let cause = cause.unwrap_or_else(|| status.message().to_owned());
                vec![format!("error: server unreachable: {cause}"), format!("hint: {}", hint(status))]
            }
            Self::Status(status) => refusal_lines(status),
        }
    }
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
