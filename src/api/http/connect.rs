//! The Connect protocol: unary and server-streaming calls over HTTP, with JSON or binary messages.
//!
//! See <https://connectrpc.com/docs/protocol>. Message types are read from the descriptor set.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tonic::codegen::http::{self, HeaderMap, Request, Response, StatusCode, request};
use tonic::{Code, Status};

use crate::api::convert::InvalidFields;
use crate::api::headers;
use crate::api::middleware::response_memory::{ReplyMemory, ResponseMemory};
use crate::api::status::{into_status, to_status};
use crate::model::{ErrorCode, Reservation};
use crate::scheduler::Internal;

use super::context::Context;
use super::descriptors::Method;
use super::json_decode;
use super::loopback::{Frames, LoopbackClient, PREFIX_BYTES, Reply, incomplete};
use super::query::{Query, UnknownFields};
use super::response::{self, edge_error, error_json, error_with_status, method_not_allowed};

/// Envelope flag: the content is compressed.
const COMPRESSED: u8 = 1;
/// Envelope flag: the last envelope of the stream.
const END_OF_STREAM: u8 = 2;
/// Maximum length of `connect-timeout-ms`, as the protocol defines it.
const TIMEOUT_DIGITS_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Json,
    Proto,
}

/// Encoding of a call, determined by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Encoding {
    codec: Codec,
    /// Whether messages are in envelopes.
    streaming: bool,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let (codec, streaming) = match headers::media_type(headers)?.as_str() {
            "application/json" => (Codec::Json, false),
            "application/proto" => (Codec::Proto, false),
            "application/connect+json" => (Codec::Json, true),
            "application/connect+proto" => (Codec::Proto, true),
            _ => return None,
        };
        Some(Self { codec, streaming })
    }

    const fn content_type(self) -> &'static str {
        match (self.codec, self.streaming) {
            (Codec::Json, false) => "application/json",
            (Codec::Proto, false) => "application/proto",
            (Codec::Json, true) => "application/connect+json",
            (Codec::Proto, true) => "application/connect+proto",
        }
    }
}

impl Codec {
    /// Converts a request message to protobuf.
    ///
    /// Both are in memory until it returns, and `memory` of the request counts them. Then it counts nothing, because the
    /// layers of the call count the message.
    fn decode(
        self,
        method: &Method,
        message: Bytes,
        unknown: UnknownFields,
        mut memory: Option<Reservation>,
    ) -> Result<Vec<u8>, Status> {
        if let Some(memory) = &mut memory {
            memory.grow(message.len() as u64).map_err(|full| to_status(&full))?;
        }
        match self {
            Self::Proto if unknown == UnknownFields::Refused => {
                Err(into_status(InvalidFields::one("strict", "is only for JSON, the message is binary")))
            }
            Self::Proto => Ok(message.into()),
            Self::Json => json_decode::decode(&method.input, &message, unknown).map_err(into_status),
        }
    }

    /// Converts a response message from protobuf.
    fn encode(self, method: &Method, message: Bytes) -> Result<Bytes, Status> {
        let internal = |cause: String| into_status(Internal { cause });
        match self {
            Self::Proto => Ok(message),
            Self::Json => {
                let message = DynamicMessage::decode(method.output.clone(), message);
                let message = message.map_err(|error| internal(error.to_string()))?;
                crate::proto::json::encode(&message).map(Bytes::from).map_err(|error| internal(error.to_string()))
            }
        }
    }
}

/// Handles a call of a method.
pub async fn handle(context: Context, method: Method, request: Request<Body>) -> Response<Body> {
    let contract = context.contract.clone();
    if request.method() != http::Method::POST {
        return method_not_allowed(&contract, "POST");
    }
    let encoding = Encoding::of(request.headers()).filter(|encoding| encoding.streaming == method.server_streaming);
    let Some(encoding) = encoding.filter(|_| !method.client_streaming) else {
        return unsupported_content_type(&context, &method);
    };
    let (head, body) = request.into_parts();
    if encoding.streaming {
        return server_streaming(context, method, encoding, head, body).await;
    }
    match unary(&context, &method, encoding.codec, &head, body).await {
        Ok((reply, memory)) => memory.attach_to(unary_response(encoding, reply)),
        Err((status, metadata)) => {
            let mut response = response::error(&contract, &status);
            copy_metadata(response.headers_mut(), metadata, "");
            response
        }
    }
}

fn unsupported_content_type(context: &Context, method: &Method) -> Response<Body> {
    let supported = match (method.client_streaming, method.server_streaming) {
        (true, _) => "application/grpc",
        (false, true) => "application/connect+json, application/connect+proto",
        (false, false) => "application/json, application/proto",
    };
    let status =
        edge_error(ErrorCode::Unsupported, format!("unsupported content-type; this method accepts {supported}"));
    let mut response = error_with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, &context.contract, &status);
    response.headers_mut().insert("accept-post", HeaderValue::from_static(supported));
    response
}

/// An error with the metadata of the service.
type ErrorWithMetadata = (Status, HeaderMap);

fn without_metadata(status: Status) -> ErrorWithMetadata {
    (status, HeaderMap::new())
}

async fn unary(
    context: &Context,
    method: &Method,
    codec: Codec,
    head: &request::Parts,
    body: Body,
) -> Result<(Reply, ReplyMemory), ErrorWithMetadata> {
    let deadline = deadline(&head.headers).map_err(without_metadata)?;
    let unknown = Query::parse_strict_only(head.uri.query()).map_err(without_metadata)?;
    let mut admission = context.admit(head).map_err(without_metadata)?;
    let body = context.receive(head, body, context.payload_limit.json_bytes(), deadline, &mut admission).await;
    let body = body.map_err(without_metadata)?;
    let message = codec.decode(method, body.bytes, unknown, body.memory).map_err(without_metadata)?;
    let client = LoopbackClient::new(context, head, deadline, admission);
    let mut reply = client.unary(head.uri.path(), message).await?;
    reply.message = codec.encode(method, reply.message).map_err(without_metadata)?;
    Ok((reply, client.memory()))
}

fn unary_response(encoding: Encoding, reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(reply.message)));
    let headers = response.headers_mut();
    copy_metadata(headers, reply.headers, "");
    copy_metadata(headers, reply.trailers, "trailer-");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
    response
}

/// Copies the metadata of a service, with a prefix before each name.
fn copy_metadata(to: &mut HeaderMap, from: HeaderMap, prefix: &str) {
    let mut current = None;
    for (name, value) in from {
        // The iterator returns a name only with the first of its values.
        current = name.or(current);
        let Some(name) = current.as_ref().map(HeaderName::as_str).filter(|name| is_metadata(name)) else { continue };
        if let Ok(name) = HeaderName::try_from(format!("{prefix}{name}")) {
            to.append(name, value);
        }
    }
}

fn is_metadata(name: &str) -> bool {
    !name.starts_with("grpc-") && !["content-type", "content-length", "date"].contains(&name)
}

/// Checks the protocol version and returns the deadline of the call.
pub fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let invalid = |message: String| edge_error(ErrorCode::InvalidField, message);
    if let Some(version) = headers.get("connect-protocol-version").filter(|version| *version != "1") {
        return Err(invalid(format!("connect-protocol-version is {version:?}, must be 1")));
    }
    let Some(header) = headers.get("connect-timeout-ms") else { return Ok(None) };
    let digits = header.to_str().ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let millis = digits.filter(|digits| digits.len() <= TIMEOUT_DIGITS_MAX).and_then(|digits| digits.parse().ok());
    let Some(millis) = millis else {
        return Err(invalid(format!("connect-timeout-ms is {header:?}, must be 1 to {TIMEOUT_DIGITS_MAX} digits")));
    };
    Ok(Instant::now().checked_add(Duration::from_millis(millis)))
}

/// The HTTP status of a stream is always 200. Its last envelope has the gRPC status.
async fn server_streaming(
    context: Context,
    method: Method,
    encoding: Encoding,
    head: request::Parts,
    body: Body,
) -> Response<Body> {
    let started = start(&context, &method, encoding.codec, &head, body).await;
    let mut memory = None;
    let (metadata, stream) = match started {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            memory = head.extensions.remove::<ResponseMemory>();
            let status = Status::from_header_map(&head.headers);
            let envelopes = envelopes(context, method, encoding.codec, status, body);
            (head.headers, Body::new(StreamBody::new(envelopes)))
        }
        Err(status) => {
            let end = end_of_stream(&context, &status, &HeaderMap::new());
            (HeaderMap::new(), Body::new(Full::new(end)))
        }
    };
    let mut response = Response::new(stream);
    if let Some(memory) = memory {
        response.extensions_mut().insert(memory);
    }
    copy_metadata(response.headers_mut(), metadata, "");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
    response
}

async fn start(
    context: &Context,
    method: &Method,
    codec: Codec,
    head: &request::Parts,
    body: Body,
) -> Result<Response<Body>, Status> {
    let deadline = deadline(&head.headers)?;
    let unknown = Query::parse_strict_only(head.uri.query())?;
    let mut admission = context.admit(head)?;
    let bytes = PREFIX_BYTES + context.payload_limit.json_bytes();
    let body = context.receive(head, body, bytes, deadline, &mut admission).await?;
    let message = codec.decode(method, open_envelope(body.bytes)?, unknown, body.memory)?;
    Ok(LoopbackClient::new(context, head, deadline, admission).open(head.uri.path(), message).await)
}

/// Returns the message of a request that consists of one envelope.
fn open_envelope(mut body: Bytes) -> Result<Bytes, Status> {
    let invalid = |message: &str| Err(edge_error(ErrorCode::InvalidField, message));
    let Some(&[flags, a, b, c, d]) = body.first_chunk::<PREFIX_BYTES>() else {
        return invalid("the request has no envelope: one byte of flags, four bytes of length, the message");
    };
    if flags & COMPRESSED != 0 {
        return Err(edge_error(
            ErrorCode::Unsupported,
            "compressed messages are not supported; send the message uncompressed",
        ));
    }
    let message = body.split_off(PREFIX_BYTES);
    if flags != 0 || message.len() != u32::from_be_bytes([a, b, c, d]) as usize {
        return invalid("the request must be one envelope with flags 0 and the length of the message");
    }
    Ok(message)
}

/// Streams the messages of a service in envelopes, then the status.
fn envelopes(
    context: Context,
    method: Method,
    codec: Codec,
    mut status: Option<Status>,
    mut body: Body,
) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    async_stream::stream! {
        let mut frames = Frames::default();
        let mut trailers = HeaderMap::new();
        while status.is_none() {
            match body.frame().await {
                Some(Ok(frame)) if frame.is_data() => frames.push(&frame.into_data().unwrap_or_default()),
                Some(Ok(frame)) => {
                    trailers = frame.into_trailers().unwrap_or_default();
                    status = Status::from_header_map(&trailers);
                }
                Some(Err(error)) => status = Some(error),
                None => status = Some(incomplete()),
            }
            while let Some(message) = frames.next() {
                match codec.encode(&method, message) {
                    Ok(message) => yield Ok(Frame::data(envelope(0, &message))),
                    Err(error) => status = Some(error),
                }
            }
        }
        if let Some(status) = status {
            yield Ok(Frame::data(end_of_stream(&context, &status, &trailers)));
        }
    }
}

fn envelope(flags: u8, content: &[u8]) -> Bytes {
    let mut envelope = BytesMut::with_capacity(PREFIX_BYTES + content.len());
    envelope.put_u8(flags);
    // Messages are limited to far less than 4 GiB.
    envelope.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    envelope.put_slice(content);
    envelope.freeze()
}

/// Returns the last envelope of a stream, with its status and trailers.
fn end_of_stream(context: &Context, status: &Status, trailers: &HeaderMap) -> Bytes {
    let mut end = json!({});
    if status.code() != Code::Ok {
        end["error"] = error_json(&context.contract, status);
    }
    for (name, value) in trailers.iter().filter(|(name, _)| is_metadata(name.as_str())) {
        let value = Value::from(String::from_utf8_lossy(value.as_bytes()));
        match &mut end["metadata"][name.as_str()] {
            Value::Array(values) => values.push(value),
            missing => *missing = json!([value]),
        }
    }
    envelope(END_OF_STREAM, end.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_determines_the_encoding() {
        let of = |text: &'static str| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(text))].into_iter().collect();
            Encoding::of(&headers).map(Encoding::content_type)
        };
        assert_eq!(of("application/json"), Some("application/json"));
        assert_eq!(of("Application/JSON ; charset=utf-8"), Some("application/json"));
        assert_eq!(of("application/connect+proto"), Some("application/connect+proto"));
        for other in
            ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/connect+xml"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_streaming_request_is_one_envelope() {
        assert_eq!(open_envelope(envelope(0, b"{}")).unwrap(), "{}");
        assert_eq!(open_envelope(envelope(0, b"")).unwrap(), "");
        let two = Bytes::from([envelope(0, b"{}"), envelope(0, b"{}")].concat());
        let short = envelope(0, b"{}").slice(..6);
        for bad in [Bytes::new(), Bytes::from_static(b"{}"), envelope(END_OF_STREAM, b"{}"), two, short] {
            assert_eq!(open_envelope(bad).unwrap_err().code(), Code::InvalidArgument);
        }
        assert_eq!(open_envelope(envelope(COMPRESSED, b"x")).unwrap_err().code(), Code::Unimplemented);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_has_at_most_ten_digits() {
        let with = |name: &'static str, value: &'static str| {
            deadline(&[(HeaderName::from_static(name), HeaderValue::from_static(value))].into_iter().collect())
        };
        let after = |millis| Some(Instant::now() + Duration::from_millis(millis));
        assert_eq!(with("connect-timeout-ms", "1500").unwrap(), after(1_500));
        assert_eq!(with("connect-timeout-ms", "9999999999").unwrap(), after(9_999_999_999));
        for bad in ["", "-1", "1.5", "12345678901", "5s"] {
            assert_eq!(with("connect-timeout-ms", bad).unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
        }
        assert_eq!(with("connect-protocol-version", "1").unwrap(), None);
        assert!(with("connect-protocol-version", "2").is_err());
    }
}
