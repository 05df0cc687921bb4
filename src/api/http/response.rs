//! HTTP responses: JSON, text, and errors in the format of the Connect protocol.

use base64::prelude::{BASE64_STANDARD_NO_PAD, Engine};
use bytes::Bytes;
use http_body_util::Full;
use prost::Message;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::codegen::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use tonic::codegen::http::{Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::model::ErrorCode;

use super::descriptors::Contract;
use crate::api::status::{self, EdgeError};

/// Content type of JSON.
pub const JSON: &str = "application/json";

pub fn text(content: impl Into<Bytes>) -> Response<Body> {
    with_content_type(StatusCode::OK, "text/plain; charset=utf-8", content)
}

pub fn json(status: StatusCode, value: &Value) -> Response<Body> {
    with_content_type(status, JSON, format!("{value}\n"))
}

/// Builds a response that clients do not cache and whose type browsers do not guess.
pub fn with_content_type(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(content.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Builds the status of an error that the HTTP layer itself detects.
pub fn edge_error(code: ErrorCode, message: impl Into<String>) -> Status {
    status::to_status(&EdgeError { code, message: message.into() })
}

/// Builds an error response with the HTTP status that the Connect protocol assigns to the gRPC code.
pub fn error(contract: &Contract, status: &Status) -> Response<Body> {
    let http_status = match status.code() {
        // Every method is implemented: the content type or the coding of the body is not.
        Code::Unimplemented => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        code => connect_code(code).1,
    };
    error_with_status(http_status, contract, status)
}

pub fn error_with_status(http_status: StatusCode, contract: &Contract, status: &Status) -> Response<Body> {
    let mut response = json(http_status, &error_json(contract, status));
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        // The header has whole seconds. Rounded up, so that the client does not retry too early.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Builds an error response of gRPC-Web. Without a message, gRPC-Web carries the status in the headers.
pub fn grpc_web_error(status: Status) -> Response<Body> {
    let mut response = status.into_http();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web+proto"));
    response
}

pub fn method_not_allowed(contract: &Contract, allowed: &'static str) -> Response<Body> {
    let status = edge_error(ErrorCode::Unsupported, format!("method not allowed; use {allowed}"));
    let mut response = error_with_status(StatusCode::METHOD_NOT_ALLOWED, contract, &status);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Returns an error as JSON: code, message, and each detail both encoded (`value`) and readable (`debug`).
pub fn error_json(contract: &Contract, status: &Status) -> Value {
    let mut error = json!({ "code": connect_code(status.code()).0, "message": status.message() });
    let rich = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
    let details: Vec<_> = rich.details.iter().map(|detail| detail_json(contract, detail)).collect();
    if !details.is_empty() {
        error["details"] = details.into();
    }
    error
}

fn detail_json(contract: &Contract, detail: &prost_types::Any) -> Value {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let mut json = json!({ "type": name, "value": BASE64_STANDARD_NO_PAD.encode(&detail.value) });
    let debug = contract.detail(name, &detail.value);
    if let Some(debug) = debug.and_then(|text| serde_json::from_slice(&text).ok()) {
        json["debug"] = debug;
    }
    json
}

/// Returns the name of a gRPC code in the Connect protocol and its HTTP status.
fn connect_code(code: Code) -> (&'static str, StatusCode) {
    match code {
        // An error with code OK is a bug of the server.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn an_error_has_encoded_and_readable_details() {
        let mut details = ErrorDetails::with_error_info("QUEUE_FULL", "lineshaft.dev", [("limit".into(), "5".into())]);
        details.set_retry_info(Some(Duration::from_millis(1_200)));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        let contract = Contract::new().unwrap();
        let error_json = error_json(&contract, &status);
        assert_eq!((&error_json["code"], &error_json["message"]), (&json!("resource_exhausted"), &json!("full")));
        let info =
            error_json["details"].as_array().unwrap().iter().find(|d| d["type"] == "google.rpc.ErrorInfo").unwrap();
        let expected = json!({"reason": "QUEUE_FULL", "domain": "lineshaft.dev", "metadata": {"limit": "5"}});
        assert_eq!(info["debug"], expected);
        let value = BASE64_STANDARD_NO_PAD.decode(info["value"].as_str().unwrap()).unwrap();
        assert_eq!(tonic_types::pb::ErrorInfo::decode(&value[..]).unwrap().reason, "QUEUE_FULL");
        let response = error(&contract, &status);
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (429, &"2".parse().unwrap()));
    }

    #[test]
    fn every_code_has_its_own_name_and_an_error_status() {
        let all = (1..17).map(Code::from_i32).map(connect_code);
        let names: std::collections::HashSet<_> = all.clone().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 16);
        assert!(all.clone().all(|(_, http)| http.as_u16() >= 400));
    }
}
