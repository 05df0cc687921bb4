//! Converts errors to gRPC statuses with rich details. The only mapping from [`ErrorCode`] to gRPC codes.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::model::{Coded, Details, ErrorCode};
use crate::proto::v1;

use super::convert::time;
use super::incident;

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "lineshaft.dev";

pub const fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidField | ErrorCode::PoolNotAllowed => Code::InvalidArgument,
        ErrorCode::UnknownHandler
        | ErrorCode::UnknownPool
        | ErrorCode::TaskNotFound
        | ErrorCode::ArtifactNotFound
        | ErrorCode::ParentNotFound
        | ErrorCode::BatchNotFound
        | ErrorCode::ScheduleNotFound => Code::NotFound,
        ErrorCode::TaskExists
        | ErrorCode::RequestIdReused
        | ErrorCode::UniqueKeyTaken
        | ErrorCode::BatchExists
        | ErrorCode::ScheduleExists => Code::AlreadyExists,
        ErrorCode::QueueFull
        | ErrorCode::MemoryFull
        | ErrorCode::Overloaded
        | ErrorCode::MessageTooLarge
        | ErrorCode::RateLimited
        | ErrorCode::QuotaExceeded
        | ErrorCode::TooManySchedules
        | ErrorCode::TooManyLimitKeys => Code::ResourceExhausted,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::TaskFinished
        | ErrorCode::TaskStarted
        | ErrorCode::TaskNotFinished
        | ErrorCode::BatchClosed
        | ErrorCode::BatchFinished
        | ErrorCode::BatchNotFinished
        | ErrorCode::ScheduleBusy
        | ErrorCode::ScheduleConfigured
        | ErrorCode::HandlerNotUploaded => Code::FailedPrecondition,
        ErrorCode::RevisionCompacted | ErrorCode::RevisionInFuture => Code::OutOfRange,
        ErrorCode::EtagMismatch | ErrorCode::WorkerReplaced | ErrorCode::WorkerEvicted => Code::Aborted,
        ErrorCode::Draining | ErrorCode::StoreUnavailable | ErrorCode::SchedulerStalled => Code::Unavailable,
        ErrorCode::Unsupported => Code::Unimplemented,
        ErrorCode::ForeignOrigin | ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Internal => Code::Internal,
    }
}

/// Converts an error to a status. For an internal error, the status has only an incident id, and the error is logged
/// with the same id.
pub fn to_status(error: &dyn Coded) -> Status {
    let ErrorParts { code, message, details } = error_parts(error);
    let metadata: HashMap<_, _> = details.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut rich = ErrorDetails::with_error_info(code.reason(), DOMAIN, metadata);
    for violation in details.violations {
        rich.add_bad_request_violation(violation.field, violation.description);
    }
    if let Some(delay) = details.retry_after {
        rich.set_retry_info(Some(delay));
    }
    if let Some((subject, description)) = details.quota {
        rich.add_quota_failure_violation(subject, description);
    }
    if let Some((subject, description)) = details.precondition {
        rich.add_precondition_failure_violation("STATE", subject, description);
    }
    if let Some((kind, name)) = details.resource {
        rich.set_resource_info(kind, name, "", "");
    }
    Status::with_error_details(grpc_code(code), message, rich)
}

/// [`to_status`] for `map_err`.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes the error by value")]
pub fn into_status(error: impl Coded) -> Status {
    to_status(&error)
}

/// Converts an error of one item of a stream. It has the same content as [`to_status`].
pub fn to_rejection(error: &dyn Coded) -> v1::Rejection {
    let ErrorParts { code, message, details } = error_parts(error);
    let violation = details.violations.first().map(|violation| violation.field.clone());
    let metadata = details.metadata.iter().find(|(key, _)| *key == "field").map(|(_, field)| field.clone());
    v1::Rejection {
        code: grpc_code(code).into(),
        reason: code.reason().to_owned(),
        message,
        field: violation.or(metadata).unwrap_or_default(),
        retry_after: details.retry_after.map(time::duration),
        metadata: details.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}

struct ErrorParts {
    code: ErrorCode,
    message: String,
    details: Details,
}

fn error_parts(error: &dyn Coded) -> ErrorParts {
    let code = error.code();
    if code != ErrorCode::Internal {
        return ErrorParts { code, message: error.public_message().into_owned(), details: error.details() };
    }
    let incident = incident::report(&chain(error)).to_string();
    let message = format!("internal error; the server log has details for incident {incident}");
    ErrorParts { code, message, details: Details { metadata: vec![("incident", incident)], ..Details::default() } }
}

/// Returns the texts of the error and its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// An error that the edge itself detects.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EdgeError {
    pub code: ErrorCode,
    pub message: String,
}

impl Coded for EdgeError {
    fn code(&self) -> ErrorCode {
        self.code
    }

    fn details(&self) -> Details {
        let overloaded = self.code == ErrorCode::Overloaded;
        Details { retry_after: overloaded.then(|| Duration::from_millis(100)), ..Details::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FieldViolation;
    use crate::scheduler::{Internal, QueueFull};

    #[test]
    fn every_reason_is_upper_snake_case_and_no_code_is_ok() {
        for code in ErrorCode::ALL {
            let reason = code.reason();
            assert!(reason.len() <= 63 && reason.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{reason}");
            assert_ne!(grpc_code(code), Code::Ok);
        }
    }

    #[test]
    fn every_reason_is_documented() {
        let text = include_str!("../../docs/errors.md");
        for code in ErrorCode::ALL {
            let mut name = String::new();
            for letter in format!("{:?}", grpc_code(code)).chars() {
                if letter.is_ascii_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            let row = format!("| `{}` | {name} |", code.reason());
            assert!(text.contains(&row), "docs/errors.md has no row that starts with {row}");
        }
    }

    #[test]
    fn a_full_queue_has_a_quota_failure_and_a_retry_delay() {
        let pool = crate::model::PoolName::parse("p").unwrap();
        let status = to_status(&QueueFull { pool, waiting: 5, limit: 5 });
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
        assert_eq!(details.error_info().unwrap().metadata["limit"], "5");
        assert!(details.retry_info().unwrap().retry_delay.is_some());
        assert_eq!(details.quota_failure().unwrap().violations.len(), 1);
    }

    #[test]
    fn internal_errors_reach_the_client_as_an_incident_id_only() {
        let error = Internal { cause: "secret path".to_owned() };
        let status = to_status(&error);
        assert!(!format!("{status:?}").contains("secret"));
        assert!(status.get_error_details().error_info().unwrap().metadata.contains_key("incident"));
        let rejection = to_rejection(&error);
        assert!(!format!("{rejection:?}").contains("secret"));
        assert!(rejection.message.contains(&rejection.metadata["incident"]));
    }

    #[test]
    fn a_rejection_has_the_same_content_as_a_status() {
        let full = QueueFull { pool: crate::model::PoolName::parse("p").unwrap(), waiting: 5, limit: 5 };
        let (status, rejection) = (to_status(&full), to_rejection(&full));
        assert_eq!((rejection.code, rejection.message.as_str()), (status.code().into(), status.message()));
        assert_eq!(rejection.metadata["limit"], "5");
        assert!(rejection.retry_after.is_some());
    }

    #[test]
    fn the_log_contains_the_sources_of_an_error() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to read")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("no disk"))), "failed to read: no disk");
    }

    #[test]
    fn every_kind_of_detail_is_converted() {
        #[derive(Debug, thiserror::Error)]
        #[error("everything at once")]
        struct Everything;
        impl Coded for Everything {
            fn code(&self) -> ErrorCode {
                ErrorCode::TaskFinished
            }
            fn details(&self) -> Details {
                let violation = FieldViolation { field: "a.b".to_owned(), description: "is bad".to_owned() };
                Details {
                    metadata: vec![("key", "value".to_owned())],
                    violations: vec![violation],
                    retry_after: Some(Duration::from_secs(2)),
                    quota: Some(("pool:p".to_owned(), "full".to_owned())),
                    precondition: Some(("task:t".to_owned(), "has ended".to_owned())),
                    resource: Some(("task", "t".to_owned())),
                }
            }
        }
        let details = to_status(&Everything).get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("TASK_FINISHED", DOMAIN));
        assert_eq!(info.metadata["key"], "value");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "a.b");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(2)));
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "pool:p");
        assert_eq!(details.precondition_failure().unwrap().violations[0].subject, "task:t");
        assert_eq!(details.resource_info().unwrap().resource_name, "t");
    }
}
