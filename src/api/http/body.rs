//! Bodies of requests, read whole: within a size, within a time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use crate::model::ErrorCode;

use super::response::edge;

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes.
    pub bytes: usize,
    /// From its first byte to its last.
    pub time: Duration,
}

/// The whole body.
///
/// # Errors
/// It is larger, slower, or compressed.
pub async fn read(headers: &HeaderMap, body: Body, bounds: Bounds, deadline: Option<Instant>) -> Result<Bytes, Status> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("content encoding {encoding:?} is not supported, only identity is");
        return Err(edge(ErrorCode::Unsupported, message));
    }
    let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|length| length > bounds.bytes as u64) {
        return Err(too_large(bounds.bytes));
    }
    let patience = Instant::now() + bounds.time;
    let until = deadline.map_or(patience, |deadline| deadline.min(patience));
    match timeout_at(until, Limited::new(body, bounds.bytes).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bounds.bytes)),
        Ok(Err(error)) => Err(edge(ErrorCode::InvalidField, format!("the body broke off: {error}"))),
        Err(_) => Err(edge(ErrorCode::DeadlineExceeded, "the body was not complete in time")),
    }
}

fn too_large(limit: usize) -> Status {
    edge(ErrorCode::MessageTooLarge, format!("the body has more than {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use tonic::Code;
    use tonic::codegen::http::HeaderValue;

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 4, time: Duration::from_secs(3) };

    async fn read_with(name: &'static str, value: &'static str, body: Body) -> Result<Bytes, Status> {
        let headers = [(name.parse().unwrap(), HeaderValue::from_static(value))].into_iter().collect();
        read(&headers, body, BOUNDS, None).await
    }

    #[tokio::test]
    async fn a_body_has_its_size_whether_it_says_so_or_not() {
        let body = |text: &'static str| Body::new(Full::from(text));
        assert_eq!(read_with("x", "", body("four")).await.unwrap(), "four");
        assert_eq!(read_with("x", "", body("fiveB")).await.unwrap_err().code(), Code::ResourceExhausted);
        let lies = read_with("content-length", "99999999999", body("")).await;
        assert_eq!(lies.unwrap_err().code(), Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused_before_it_is_read() {
        let refused = read_with("content-encoding", "gzip", Body::empty()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("identity"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_not_waited_for() {
        let endless = || {
            let nothing = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Status>>();
            Body::new(StreamBody::new(nothing))
        };
        let begun = Instant::now();
        let refused = read(&HeaderMap::new(), endless(), BOUNDS, None).await.unwrap_err();
        assert_eq!((refused.code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 3));
        let deadline = Some(Instant::now() + Duration::from_secs(1));
        read(&HeaderMap::new(), endless(), BOUNDS, deadline).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 4, "the caller's deadline comes first");
    }
}
