//! Reads whole request bodies, within limits of size, time and memory.

use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::CONTENT_LENGTH;

use crate::api::headers::{self, Coding};
use crate::api::status;
use crate::model::{ErrorCode, Reservation};
use crate::scheduler::Internal;

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
/// MEMORY_FULL, MESSAGE_TOO_LARGE, DEADLINE_EXCEEDED, UNSUPPORTED if the body is compressed other than with gzip,
/// INVALID_FIELD if it ends early or is not valid gzip.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    deadline: Option<Instant>,
    memory: Option<Reservation>,
) -> Result<ReceivedBody, Status> {
    let coding = headers::content_coding(headers).map_err(|codings| {
        let message = format!("content-encoding {codings:?} is not supported; use gzip or send the body uncompressed");
        edge_error(ErrorCode::Unsupported, message)
    })?;
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.bytes as u64) {
        return Err(too_large(limits.bytes));
    }
    let timeout = Instant::now() + limits.timeout;
    let until = deadline.map_or(timeout, |deadline| deadline.min(timeout));
    let received = timeout_at(until, collect(body, limits.bytes, memory)).await.unwrap_or_else(|_| {
        let message = "the request body was not complete before `http.body_timeout` or the deadline of the call";
        Err(edge_error(ErrorCode::DeadlineExceeded, message))
    })?;
    match coding {
        Coding::Identity => Ok(received),
        // Takes up to some tens of milliseconds.
        Coding::Gzip => {
            tokio::task::spawn_blocking(move || unzip(received, limits.bytes)).await.unwrap_or_else(|error| {
                Err(status::to_status(&Internal { cause: format!("failed to decompress a body: {error}") }))
            })
        }
    }
}

/// Decompresses a body. The limits apply to the content.
fn unzip(body: ReceivedBody, limit: usize) -> Result<ReceivedBody, Status> {
    let ReceivedBody { bytes: compressed, mut memory } = body;
    let mut source = MultiGzDecoder::new(&compressed[..]);
    let (mut bytes, mut piece) = (BytesMut::new(), [0; 16 << 10]);
    loop {
        let read = source.read(&mut piece).map_err(|error| {
            edge_error(ErrorCode::InvalidField, format!("the request body is not valid gzip: {error}"))
        })?;
        if read == 0 {
            return Ok(ReceivedBody { bytes: bytes.freeze(), memory });
        }
        if bytes.len() + read > limit {
            return Err(too_large(limit));
        }
        if let Some(memory) = &mut memory {
            memory.grow(read as u64).map_err(|full| status::to_status(&full))?;
        }
        bytes.extend_from_slice(&piece[..read]);
    }
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
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http_body_util::{Full, StreamBody};
    use tonic::Code;
    use tonic::codegen::http::HeaderValue;
    use tonic::codegen::http::header::CONTENT_ENCODING;
    use tonic_types::StatusExt;

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

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn the_limits_apply_to_the_content_of_a_compressed_body() {
        let limits = BodyLimits { bytes: 10_000, ..LIMITS };
        let headers = [(CONTENT_ENCODING, HeaderValue::from_static("GZIP"))].into_iter().collect();
        let read = async |bytes: Vec<u8>, account: &MemoryAccount| {
            read(&headers, Body::new(Full::from(bytes)), limits, None, nothing(account)).await
        };
        let (enough, little) = (account(20_000), account(10_000));
        let content = vec![b'x'; 10_000];
        assert_eq!(read(gzip(&content), &enough).await.unwrap().bytes, content);
        let two = [gzip(b"one"), gzip(b"two")].concat();
        assert_eq!(read(two, &enough).await.unwrap().bytes, "onetwo");
        let error = |read: Result<ReceivedBody, Status>| reason(&read.unwrap_err());
        assert_eq!(error(read(gzip(&vec![0; 10_001]), &enough).await), "MESSAGE_TOO_LARGE");
        assert_eq!(error(read(gzip(&vec![0; 9_999_999]), &enough).await), "MESSAGE_TOO_LARGE");
        assert_eq!(error(read(gzip(&content), &little).await), "MEMORY_FULL");
        assert_eq!(error(read(gzip(&content)[..20].to_vec(), &enough).await), "INVALID_FIELD");
        assert_eq!(error(read(b"plain".to_vec(), &enough).await), "INVALID_FIELD");
    }

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    #[tokio::test]
    async fn codings_are_compared_without_case_and_unknown_ones_are_rejected() {
        let body = || Body::new(Full::from("four"));
        assert_eq!(read_with("content-encoding", "Identity", body()).await.unwrap(), "four");
        let error = read_with("content-encoding", "br", body()).await.unwrap_err();
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
