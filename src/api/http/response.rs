//! Answers over plain HTTP: JSON, texts, and refusals as the Connect protocol has them.

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

/// Media type of JSON.
pub const JSON: &str = "application/json";

/// A text for people.
pub fn text(content: impl Into<Bytes>) -> Response<Body> {
    of_type(StatusCode::OK, "text/plain; charset=utf-8", content)
}

/// A JSON value.
pub fn value(status: StatusCode, value: &Value) -> Response<Body> {
    of_type(status, JSON, format!("{value}\n"))
}

/// Some content. Never cached, never taken for another type.
pub fn of_type(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(content.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A condition of the edge itself.
pub fn edge(code: ErrorCode, message: impl Into<String>) -> Status {
    status::of(&EdgeError { code, message: message.into() })
}

/// A refusal with the HTTP status that its code has.
pub fn refusal(contract: &Contract, refused: &Status) -> Response<Body> {
    refusal_as(words(refused.code()).1, contract, refused)
}

/// A refusal with an HTTP status of its own.
pub fn refusal_as(http: StatusCode, contract: &Contract, refused: &Status) -> Response<Body> {
    let mut response = value(http, &refusal_value(contract, refused));
    if let Some(delay) = refused.get_details_retry_info().and_then(|info| info.retry_delay) {
        // Whole seconds, and not too early.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// A refusal as gRPC-Web has it when there is no message: all of it in the headers, details included.
pub fn web_refusal(refused: Status) -> Response<Body> {
    let mut response = refused.into_http();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web+proto"));
    response
}

/// The path is right and the method is not.
pub fn wrong_method(contract: &Contract, allowed: &'static str) -> Response<Body> {
    let refused = edge(ErrorCode::Unsupported, format!("this path answers {allowed} only"));
    let mut response = refusal_as(StatusCode::METHOD_NOT_ALLOWED, contract, &refused);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A refusal as JSON: code, message, and details both for programs (`value`) and for people (`debug`).
pub fn refusal_value(contract: &Contract, refused: &Status) -> Value {
    let mut error = json!({ "code": words(refused.code()).0, "message": refused.message() });
    let rich = tonic_types::pb::Status::decode(refused.details()).unwrap_or_default();
    let details: Vec<_> = rich.details.iter().map(|detail| detail_value(contract, detail)).collect();
    if !details.is_empty() {
        error["details"] = details.into();
    }
    error
}

fn detail_value(contract: &Contract, detail: &prost_types::Any) -> Value {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let mut shown = json!({ "type": name, "value": BASE64_STANDARD_NO_PAD.encode(&detail.value) });
    let debug = contract.detail(name, &detail.value);
    if let Some(debug) = debug.and_then(|text| serde_json::from_slice(&text).ok()) {
        shown["debug"] = debug;
    }
    shown
}

/// How the Connect protocol names a code, and the HTTP status that goes with it.
fn words(code: Code) -> (&'static str, StatusCode) {
    match code {
        // OK is no refusal; whoever says so made a mistake that is ours.
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
    fn a_refusal_keeps_its_details_for_programs_and_shows_them_to_people() {
        let mut details = ErrorDetails::with_error_info("QUEUE_FULL", "lineshaft.dev", [("limit".into(), "5".into())]);
        details.set_retry_info(Some(Duration::from_millis(1_200)));
        let refused = Status::with_error_details(Code::ResourceExhausted, "full", details);
        let contract = Contract::new().unwrap();
        let shown = refusal_value(&contract, &refused);
        assert_eq!((&shown["code"], &shown["message"]), (&json!("resource_exhausted"), &json!("full")));
        let info = shown["details"].as_array().unwrap().iter().find(|d| d["type"] == "google.rpc.ErrorInfo").unwrap();
        let expected = json!({"reason": "QUEUE_FULL", "domain": "lineshaft.dev", "metadata": {"limit": "5"}});
        assert_eq!(info["debug"], expected);
        let value = BASE64_STANDARD_NO_PAD.decode(info["value"].as_str().unwrap()).unwrap();
        assert_eq!(tonic_types::pb::ErrorInfo::decode(&value[..]).unwrap().reason, "QUEUE_FULL");
        let response = refusal(&contract, &refused);
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (429, &"2".parse().unwrap()));
    }

    #[test]
    fn every_code_has_its_own_word_and_no_refusal_looks_like_success() {
        let all = (1..17).map(Code::from_i32).map(words);
        let names: std::collections::HashSet<_> = all.clone().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 16);
        assert!(all.clone().all(|(_, http)| http.as_u16() >= 400));
    }
}
