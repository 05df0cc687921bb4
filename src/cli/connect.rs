//! The connection, and what is said when something goes wrong.

use std::process::ExitCode;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::model::limits;
use crate::proto::v1::handler_service_client::HandlerServiceClient;
use crate::proto::v1::pool_service_client::PoolServiceClient;
use crate::proto::v1::system_service_client::SystemServiceClient;
use crate::proto::v1::task_service_client::TaskServiceClient;

/// Exit codes; 2 is a command line that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It went well.
    Ok = 0,
    /// The task FAILED.
    TaskFailed = 1,
    /// The command line or a file that it names cannot be used.
    Usage = 2,
    /// The server refused.
    Refused = 3,
    /// The server cannot be reached, or went away.
    Unreachable = 4,
    /// The task was CANCELLED.
    TaskCancelled = 5,
    /// The task has not ended yet.
    NotFinished = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What went wrong.
#[derive(Debug)]
pub enum Problem {
    /// With the command line or a file that it names.
    Usage(String),
    /// With the call.
    Status(Box<Status>),
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Problem {
    /// The exit code that tells it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Status(status) if is_unreachable(status) => Exit::Unreachable,
            Self::Status(_) => Exit::Refused,
        }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        for line in self.lines() {
            eprintln!("{line}");
        }
    }

    fn lines(&self) -> Vec<String> {
        let status = match self {
            Self::Usage(text) => return vec![format!("error: {text}")],
            Self::Status(status) => status,
        };
        if is_unreachable(status) {
            return vec![
                format!("error: the server cannot be reached: {}", status.message()),
                "hint: start one with `lineshaft serve`, or name another with --server".to_owned(),
            ];
        }
        let details = status.get_error_details();
        let mut lines = vec![format!("error: {}", status.message())];
        match details.error_info() {
            Some(info) => lines.push(format!("reason: {}", info.reason)),
            None => lines.push(format!("code: {}", status.code())),
        }
        for violation in details.bad_request().into_iter().flat_map(|bad| &bad.field_violations) {
            lines.push(format!("field: {}: {}", violation.field, violation.description));
        }
        if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
            lines.push(format!("hint: try again in {}", humantime::format_duration(delay)));
        }
        lines
    }
}

fn is_unreachable(status: &Status) -> bool {
    status.get_error_details().error_info().is_none() && matches!(status.code(), Code::Unavailable | Code::Unknown)
}

/// The services of one server.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects when first used.
    pub fn connect(server: &str) -> Result<Self, Problem> {
        let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let endpoint =
            Endpoint::from_shared(url).map_err(|_| Problem::Usage(format!("--server {server:?} is no URL")))?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    /// Tasks.
    pub fn tasks(&self) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel.clone()).max_decoding_message_size(4 * limits::MESSAGE_BYTES_MAX)
    }

    /// Pools.
    pub fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel.clone())
    }

    /// Handlers.
    pub fn handlers(&self) -> HandlerServiceClient<Channel> {
        HandlerServiceClient::new(self.channel.clone())
    }

    /// The server as a whole.
    pub fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel.clone())
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_tells_reason_field_and_hint() {
        let mut details = ErrorDetails::with_error_info("QUEUE_FULL", "lineshaft.dev", []);
        details.add_bad_request_violation("retry.factor", "is 99, it must be from 1 to 10");
        details.set_retry_info(Some(Duration::from_secs(1)));
        let problem = Problem::from(Status::with_error_details(Code::ResourceExhausted, "full", details));
        let expected = [
            "error: full",
            "reason: QUEUE_FULL",
            "field: retry.factor: is 99, it must be from 1 to 10",
            "hint: try again in 1s",
        ];
        assert_eq!(problem.lines(), expected);
        assert_eq!(problem.exit(), Exit::Refused);
    }

    #[test]
    fn a_server_that_is_not_there_is_told_apart_from_one_that_refuses() {
        let problem = Problem::from(Status::unavailable("connection refused"));
        assert_eq!(problem.exit(), Exit::Unreachable);
        let draining = ErrorDetails::with_error_info("DRAINING", "lineshaft.dev", []);
        let problem = Problem::from(Status::with_error_details(Code::Unavailable, "stopping", draining));
        assert_eq!(problem.exit(), Exit::Refused);
    }
}
