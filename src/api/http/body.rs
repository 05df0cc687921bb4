//! Reads whole request bodies, within limits of size, time and memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use crate::api::status;
use crate::model::{ErrorCode, Reservation};

use super::response::edge_error;

#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub bytes: usize,
    /// Time in which the whole body must arrive.
    pub timeout: Duration,
}

/// A body, and the memory that is counted for it.
#[derive(Debug)]
pub struct ReceivedBody {
    pub bytes: Bytes,
    pub memory: Option<Reservation>,
}

/// `memory` grows with the body; `None`: the body is not counted.
///
/// # Errors
/// MEMORY_FULL, MESSAGE_TOO_LARGE, DEADLINE_EXCEEDED, UNSUPPORTED if the body is compressed, INVALID_FIELD if it ends early.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    deadline: Option<Instant>,
    memory: Option<Reservation>,
) -> Result<ReceivedBody, Status> {
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
    timeout_at(until, collect(body, limits.bytes, memory)).await.unwrap_or_else(|_| {
        let message = "the request body was not complete before `http.body_timeout` or the deadline of the call";
        Err(edge_error(ErrorCode::DeadlineExceeded, message))
    })
}

async fn collect(body: Body, limit: usize, mut memory: Option<Reservation>) -> Result<ReceivedBody, Status> {
    let (mut body, mut bytes) = (Limited::new(body, limit), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error {
            error if error.is::<LengthLimitError>() => too_large(limit),
            error => edge_error(ErrorCode::InvalidField, format!("the request body is incomplete: {error}")),
        })?;
        if let Ok(data) = frame.into_data() {
            if let Some(memory) = &mut memory {
                memory.grow(data.len() as u64).map_err(|full| status::to_status(&full))?;
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(ReceivedBody { bytes: bytes.freeze(), memory })
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
    use crate::model::{MemoryAccount, MemoryPart};

    const LIMITS: BodyLimits = BodyLimits { bytes: 4, timeout: Duration::from_secs(3) };

    fn account(limit: u64) -> MemoryAccount {
        MemoryAccount::new(|_| limit)
    }

    fn nothing(account: &MemoryAccount) -> Option<Reservation> {
        account.reserve(MemoryPart::Requests, 0).ok()
    }

    async fn read_with(name: &'static str, value: &'static str, body: Body) -> Result<Bytes, Status> {
        let headers = [(name.parse().unwrap(), HeaderValue::from_static(value))].into_iter().collect();
        Ok(read(&headers, body, LIMITS, None, nothing(&account(100))).await?.bytes)
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
        let error = read(&HeaderMap::new(), endless(), LIMITS, None, nothing(&account(100))).await.unwrap_err();
        assert_eq!((error.code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 3));
        let deadline = Some(Instant::now() + Duration::from_secs(1));
        read(&HeaderMap::new(), endless(), LIMITS, deadline, nothing(&account(100))).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 4, "the deadline is earlier than the timeout");
    }

    #[tokio::test]
    async fn memory_for_a_body_is_counted_until_it_is_dropped() {
        let account = account(5);
        let body = |text: &'static str| Body::new(Full::from(text));
        let received = read(&HeaderMap::new(), body("four"), LIMITS, None, nothing(&account)).await.unwrap();
        let refused = read(&HeaderMap::new(), body("2B"), LIMITS, None, nothing(&account)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("limits.request_bytes"), "{refused}");
        drop(received);
        read(&HeaderMap::new(), body("2B"), LIMITS, None, nothing(&account)).await.unwrap();
    }
}
