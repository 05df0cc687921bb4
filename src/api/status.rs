//! The one table from conditions to gRPC, and the rich details that go with them.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::model::{Coded, Details, ErrorCode};
use crate::proto::v1;

use super::convert::time;

/// `ErrorInfo.domain` of everything that this server says.
pub const DOMAIN: &str = "lineshaft.dev";

/// The gRPC code of a condition.
pub const fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidField | ErrorCode::PoolNotAllowed => Code::InvalidArgument,
        ErrorCode::UnknownHandler | ErrorCode::UnknownPool | ErrorCode::TaskNotFound => Code::NotFound,
        ErrorCode::TaskExists | ErrorCode::RequestIdReused => Code::AlreadyExists,
        ErrorCode::QueueFull | ErrorCode::MemoryFull | ErrorCode::Overloaded | ErrorCode::MessageTooLarge => {
            Code::ResourceExhausted
        }
        ErrorCode::TaskFinished => Code::FailedPrecondition,
        ErrorCode::RevisionCompacted | ErrorCode::RevisionInFuture => Code::OutOfRange,
        ErrorCode::EtagMismatch => Code::Aborted,
        ErrorCode::Draining | ErrorCode::StoreUnavailable => Code::Unavailable,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Internal => Code::Internal,
    }
}

/// What the caller is told. Of our own faults only an incident id; the log has the rest.
pub fn of(condition: &dyn Coded) -> Status {
    let code = condition.code();
    if code == ErrorCode::Internal {
        let incident = uuid::Uuid::new_v4().to_string();
        tracing::error!(%incident, error = %condition, "internal error");
        let metadata = HashMap::from([("incident".to_owned(), incident.clone())]);
        let details = ErrorDetails::with_error_info(code.reason(), DOMAIN, metadata);
        return Status::with_error_details(Code::Internal, format!("internal error; incident {incident}"), details);
    }
    let details = condition.details();
    let metadata: HashMap<String, String> =
        details.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut rich = ErrorDetails::with_error_info(code.reason(), DOMAIN, metadata);
    for violation in &details.violations {
        rich.add_bad_request_violation(&violation.field, &violation.description);
    }
    if let Some(delay) = details.retry_after {
        rich.set_retry_info(Some(delay));
    }
    if let Some((subject, description)) = &details.quota {
        rich.add_quota_failure_violation(subject, description);
    }
    if let Some((subject, description)) = &details.precondition {
        rich.add_precondition_failure_violation("STATE", subject, description);
    }
    if let Some((kind, name)) = &details.resource {
        rich.set_resource_info(*kind, name, "", "");
    }
    Status::with_error_details(grpc_code(code), condition.public_message().into_owned(), rich)
}

/// The same for one item of a stream.
pub fn rejection(condition: &dyn Coded) -> v1::Rejection {
    let code = condition.code();
    let status = of(condition);
    let Details { metadata, violations, retry_after, .. } = condition.details();
    v1::Rejection {
        code: status.code().into(),
        reason: code.reason().to_owned(),
        message: status.message().to_owned(),
        field: violations.first().map(|violation| violation.field.clone()).unwrap_or_default(),
        retry_after: retry_after.map(time::duration),
        metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}

/// A condition of the edge itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EdgeError {
    /// Which.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl Coded for EdgeError {
    fn code(&self) -> ErrorCode {
        self.code
    }

    fn details(&self) -> Details {
        let busy = self.code == ErrorCode::Overloaded;
        Details { retry_after: busy.then(|| std::time::Duration::from_millis(100)), ..Details::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::{Internal, QueueFull};

    #[test]
    fn every_reason_is_upper_snake_case_and_short_enough_and_none_means_ok() {
        for code in ErrorCode::ALL {
            let reason = code.reason();
            assert!(reason.len() <= 63 && reason.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{reason}");
            assert_ne!(grpc_code(code), Code::Ok);
        }
    }

    #[test]
    fn a_full_queue_tells_the_client_which_quota_and_when_to_come_back() {
        let pool = crate::model::PoolName::parse("p").unwrap();
        let status = of(&QueueFull { pool, waiting: 5, limit: 5 });
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
        assert_eq!(details.error_info().unwrap().metadata["limit"], "5");
        assert!(details.retry_info().unwrap().retry_delay.is_some());
        assert_eq!(details.quota_failure().unwrap().violations.len(), 1);
    }

    #[test]
    fn of_our_own_faults_only_an_incident_id_goes_out() {
        let status = of(&Internal { cause: "secret path".to_owned() });
        assert!(!format!("{status:?}").contains("secret"));
        assert!(status.get_error_details().error_info().unwrap().metadata.contains_key("incident"));
    }
}
