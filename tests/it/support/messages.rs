//! Requests, and the parts of responses that tests compare.

use lineshaft::proto::v1::{self, payload::Kind};
use tonic::Status;
use tonic_types::StatusExt;

/// A submission with a JSON payload.
pub fn task(handler: &str, json: &str) -> v1::SubmitTaskRequest {
    let kind = Some(Kind::Data(json.to_owned().into()));
    let payload = Some(v1::Payload { kind, content_type: "application/json".to_owned() });
    v1::SubmitTaskRequest { handler: handler.to_owned(), payload, ..v1::SubmitTaskRequest::default() }
}

pub fn noop() -> v1::SubmitTaskRequest {
    task("compute", "0")
}

/// The bytes of a payload or result.
pub fn bytes(payload: Option<&v1::Payload>) -> String {
    match payload.and_then(|payload| payload.kind.as_ref()) {
        Some(Kind::Data(data)) => String::from_utf8_lossy(data).into_owned(),
        other => panic!("no bytes: {other:?}"),
    }
}

/// `ErrorInfo.reason`.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "lineshaft.dev");
    info.reason.clone()
}

/// The fields of a BadRequest.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
    violations.map(|violation| violation.field.clone()).collect()
}

pub fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: i64::from(millis / 1_000), nanos: millis % 1_000 * 1_000_000 })
}
