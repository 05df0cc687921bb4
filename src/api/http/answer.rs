//! Answers for programs that speak plain HTTP: JSON, texts, and refusals as the Connect protocol has them.

use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderValue};
use tonic::codegen::http::{Response, StatusCode};
use tonic::{Code, Status};

/// A text for people.
pub(super) fn text(content: impl Into<String>) -> Response<Body> {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", content.into())
}

/// A JSON value.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    with_type(status, "application/json", value.to_string())
}

/// There is nothing at this path.
pub(super) fn not_found(path: &str) -> Response<Body> {
    let message = format!("there is nothing at {path}");
    json(StatusCode::NOT_FOUND, &serde_json::json!({ "code": "unimplemented", "message": message }))
}

/// A refusal of the services, in the Connect protocol's words.
pub(super) fn refusal(status: &Status) -> Response<Body> {
    let (code, http) = words(status.code());
    json(http, &serde_json::json!({ "code": code, "message": status.message() }))
}

/// How the Connect protocol names a code, and the HTTP status that goes with it.
fn words(code: Code) -> (&'static str, StatusCode) {
    match code {
        // Not a refusal; whoever says so made a mistake that is ours.
        Code::Ok | Code::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Cancelled => ("canceled", StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)),
        Code::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Code::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
        Code::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
        Code::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
        Code::FailedPrecondition => ("failed_precondition", StatusCode::BAD_REQUEST),
        Code::Aborted => ("aborted", StatusCode::CONFLICT),
        Code::OutOfRange => ("out_of_range", StatusCode::BAD_REQUEST),
        Code::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        Code::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Code::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
    }
}

fn with_type(status: StatusCode, content_type: &'static str, content: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::from(content)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
