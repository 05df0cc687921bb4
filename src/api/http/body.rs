//! Reads whole request bodies, within a size limit and a time limit.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use crate::model::ErrorCode;

use super::response::edge_error;

#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub bytes: usize,
    /// Time in which the whole body must arrive.
    pub timeout: Duration,
}

/// # Errors
/// MESSAGE_TOO_LARGE, DEADLINE_EXCEEDED, UNSUPPORTED if the body is compressed, INVALID_FIELD if it ends early.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    deadline: Option<Instant>,
) -> Result<Bytes, Status> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("content-encoding {encoding:?} is not supported; send the body uncompressed");
        return Err(edge_error(ErrorCode::Unsupported, message));
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.bytes as u64) {
        return Err(too_large(limits.bytes));
    }
    let timeout = Instant::now() + limits.timeout;
    let until = deadline.map_or(timeout, |deadline| deadline.min(timeout));
    match timeout_at(until, Limited::new(body, limits.bytes).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limits.bytes)),
        Ok(Err(error)) => Err(edge_error(ErrorCode::InvalidField, format!("the request body is incomplete: {error}"))),
        Err(_) => {
            let message = "the request body was not complete before `http.body_timeout` or the deadline of the call";
            Err(edge_error(ErrorCode::DeadlineExceeded, message))
        }
    }
}

fn too_large(limit: usize) -> Status {
    edge_error(ErrorCode::MessageTooLarge, format!("the request body exceeds the limit of {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use tonic::Code;
    use tonic::codegen::http::HeaderValue;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { bytes: 4, timeout: Duration::from_secs(3) };

    async fn read_with(name: &'static str, value: &'static str, body: Body) -> Result<Bytes, Status> {
        let headers = [(name.parse().unwrap(), HeaderValue::from_static(value))].into_iter().collect();
        read(&headers, body, LIMITS, None).await
    }

    #[tokio::test]
    async fn the_size_is_limited_with_and_without_content_length() {
        let body = |text: &'static str| Body::new(Full::from(text));
        assert_eq!(read_with("x", "", body("four")).await.unwrap(), "four");
        assert_eq!(read_with("x", "", body("fiveB")).await.unwrap_err().code(), Code::ResourceExhausted);
        let declared = read_with("content-length", "99999999999", body("")).await;
        assert_eq!(declared.unwrap_err().code(), Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn a_compressed_body_is_rejected() {
        let error = read_with("content-encoding", "gzip", Body::empty()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.message().contains("uncompressed"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_body_ends_at_the_timeout_or_the_deadline() {
        let endless = || {
            let nothing = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Status>>();
            Body::new(StreamBody::new(nothing))
        };
        let begun = Instant::now();
        let error = read(&HeaderMap::new(), endless(), LIMITS, None).await.unwrap_err();
        assert_eq!((error.code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 3));
        let deadline = Some(Instant::now() + Duration::from_secs(1));
        read(&HeaderMap::new(), endless(), LIMITS, deadline).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 4, "the deadline is earlier than the timeout");
    }
}
