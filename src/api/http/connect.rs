//! The Connect protocol: one message for one, or one for a stream, as JSON or binary over plain HTTP.
//!
//! <https://connectrpc.com/docs/protocol>. Generic over the descriptor set: what a method takes and
//! answers is read from there.

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

use crate::model::{ErrorCode, limits};
use crate::scheduler::Internal;

use super::body::{self, Bounds};
use super::context::Context;
use super::descriptors::{self, Method};
use super::json_encode;
use super::loopback::{Frames, LoopbackClient, PREFIX_BYTES, Reply, incomplete};
use super::response::{edge, refusal, refusal_as, refusal_value, wrong_method};
use crate::api::status;

/// Flag of an envelope: its content is compressed.
const COMPRESSED: u8 = 1;
/// Flag of an envelope: the stream ends with it.
const LAST: u8 = 2;
/// Longest time-out that a caller may give: ten digits of milliseconds.
const TIMEOUT_DIGITS_MAX: usize = 10;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Json,
    Proto,
}

/// How a call is written, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    codec: Codec,
    /// Messages come in envelopes.
    streams: bool,
}

impl Form {
    fn of(content_type: &[u8]) -> Option<Self> {
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let (codec, streams) = match essence.to_ascii_lowercase().as_slice() {
            b"application/json" => (Codec::Json, false),
            b"application/proto" => (Codec::Proto, false),
            b"application/connect+json" => (Codec::Json, true),
            b"application/connect+proto" => (Codec::Proto, true),
            _ => return None,
        };
        Some(Self { codec, streams })
    }

    const fn content_type(self) -> &'static str {
        match (self.codec, self.streams) {
            (Codec::Json, false) => "application/json",
            (Codec::Proto, false) => "application/proto",
            (Codec::Json, true) => "application/connect+json",
            (Codec::Proto, true) => "application/connect+proto",
        }
    }
}

impl Codec {
    /// The binary form of what a caller sent.
    fn read(self, method: &Method, message: Bytes) -> Result<Bytes, Status> {
        match self {
            Self::Proto => Ok(message),
            Self::Json => descriptors::read(&method.input, &message).map(Bytes::from).map_err(|bad| status::of(&bad)),
        }
    }

    /// What a caller gets for the binary form.
    fn write(self, method: &Method, message: Bytes) -> Result<Bytes, Status> {
        let fault = |cause: String| status::of(&Internal { cause });
        match self {
            Self::Proto => Ok(message),
            Self::Json => {
                let message = DynamicMessage::decode(method.output.clone(), message);
                let message = message.map_err(|error| fault(error.to_string()))?;
                json_encode::json(&message).map(Bytes::from).map_err(|error| fault(error.to_string()))
            }
        }
    }
}

/// Answers a call of a method.
pub async fn answer(context: Context, method: Method, request: Request<Body>) -> Response<Body> {
    let contract = context.contract.clone();
    if request.method() != http::Method::POST {
        return wrong_method(&contract, "POST");
    }
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let form = Form::of(content_type).filter(|form| form.streams == method.answers_stream);
    let Some(form) = form.filter(|_| !method.takes_stream) else { return wrong_form(&context, &method) };
    let (head, body) = request.into_parts();
    if form.streams {
        return streaming(context, method, form, head, body).await;
    }
    match unary(&context, &method, form.codec, &head, body).await {
        Ok(reply) => answered(form, reply),
        Err((refused, metadata)) => {
            let mut response = refusal(&contract, &refused);
            keep_metadata(response.headers_mut(), metadata, "");
            response
        }
    }
}

/// The content type is none in which this method can be called.
fn wrong_form(context: &Context, method: &Method) -> Response<Body> {
    let forms = match (method.takes_stream, method.answers_stream) {
        (true, _) => "application/grpc",
        (false, true) => "application/connect+json, application/connect+proto",
        (false, false) => "application/json, application/proto",
    };
    let refused = edge(ErrorCode::Unsupported, format!("this method is called with content-type {forms}"));
    let mut response = refusal_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &context.contract, &refused);
    response.headers_mut().insert("accept-post", HeaderValue::from_static(forms));
    response
}

type Refused = (Status, HeaderMap);

fn alone(refused: Status) -> Refused {
    (refused, HeaderMap::new())
}

async fn unary(
    context: &Context,
    method: &Method,
    codec: Codec,
    head: &request::Parts,
    body: Body,
) -> Result<Reply, Refused> {
    let deadline = deadline(&head.headers).map_err(alone)?;
    let admission = context.admit(head).map_err(alone)?;
    let bounds = Bounds { bytes: limits::MESSAGE_BYTES_MAX, time: context.body_timeout };
    let sent = body::read(&head.headers, body, bounds, deadline).await.map_err(alone)?;
    let message = codec.read(method, sent).map_err(alone)?;
    let client = LoopbackClient::new(context, head, deadline, admission);
    let mut reply = client.unary(head.uri.path(), &message).await?;
    reply.message = codec.write(method, reply.message).map_err(alone)?;
    Ok(reply)
}

fn answered(form: Form, reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(reply.message)));
    let headers = response.headers_mut();
    keep_metadata(headers, reply.headers, "");
    keep_metadata(headers, reply.trailers, "trailer-");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response
}

/// What a service says besides its message, under names with a prefix.
fn keep_metadata(to: &mut HeaderMap, from: HeaderMap, prefix: &str) {
    let mut current = None;
    for (name, value) in from {
        // A name is given once for all of its values.
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

/// Checks the version that the caller speaks, and reads how long it waits.
pub fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let invalid = |message: String| edge(ErrorCode::InvalidField, message);
    if let Some(version) = headers.get("connect-protocol-version").filter(|version| *version != "1") {
        return Err(invalid(format!("connect-protocol-version is {version:?}, only 1 is spoken here")));
    }
    let Some(said) = headers.get("connect-timeout-ms") else { return Ok(None) };
    let digits = said.to_str().ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let millis = digits.filter(|digits| digits.len() <= TIMEOUT_DIGITS_MAX).and_then(|digits| digits.parse().ok());
    let Some(millis) = millis else {
        return Err(invalid(format!("connect-timeout-ms is {said:?}, it must be 1 to {TIMEOUT_DIGITS_MAX} digits")));
    };
    Ok(Instant::now().checked_add(Duration::from_millis(millis)))
}

/// A stream is always a success for HTTP; how it really ended is said in its last envelope.
async fn streaming(context: Context, method: Method, form: Form, head: request::Parts, body: Body) -> Response<Body> {
    let begun = begin(&context, &method, form.codec, &head, body).await;
    let (metadata, content) = match begun {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let early = Status::from_header_map(&head.headers);
            let envelopes = envelopes(context, method, form.codec, early, body);
            (head.headers, Body::new(StreamBody::new(envelopes)))
        }
        Err(refused) => (HeaderMap::new(), Body::new(Full::new(last(&context, &refused, &HeaderMap::new())))),
    };
    let mut response = Response::new(content);
    keep_metadata(response.headers_mut(), metadata, "");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response
}

async fn begin(
    context: &Context,
    method: &Method,
    codec: Codec,
    head: &request::Parts,
    body: Body,
) -> Result<Response<Body>, Status> {
    let deadline = deadline(&head.headers)?;
    let admission = context.admit(head)?;
    let bounds = Bounds { bytes: PREFIX_BYTES + limits::MESSAGE_BYTES_MAX, time: context.body_timeout };
    let sent = body::read(&head.headers, body, bounds, deadline).await?;
    let message = codec.read(method, only_message(sent)?)?;
    Ok(LoopbackClient::new(context, head, deadline, admission).open(head.uri.path(), &message).await)
}

/// The one message of a request that comes in an envelope.
fn only_message(mut sent: Bytes) -> Result<Bytes, Status> {
    let invalid = |message: &str| Err(edge(ErrorCode::InvalidField, message));
    let Some(&[flags, a, b, c, d]) = sent.first_chunk::<PREFIX_BYTES>() else {
        return invalid("the request has no envelope: a byte of flags, four of length, the message");
    };
    if flags & COMPRESSED != 0 {
        return Err(edge(ErrorCode::Unsupported, "compressed messages are not supported"));
    }
    let message = sent.split_off(PREFIX_BYTES);
    if flags != 0 || message.len() != u32::from_be_bytes([a, b, c, d]) as usize {
        return invalid("the request must be one envelope with flags 0 and the length of what follows");
    }
    Ok(message)
}

/// The answer of a service, message by message, and how it ended.
fn envelopes(
    context: Context,
    method: Method,
    codec: Codec,
    early: Option<Status>,
    mut answer: Body,
) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    async_stream::stream! {
        let mut frames = Frames::default();
        let mut trailers = HeaderMap::new();
        let mut ended = early;
        while ended.is_none() {
            match answer.frame().await {
                Some(Ok(frame)) if frame.is_data() => frames.push(&frame.into_data().unwrap_or_default()),
                Some(Ok(frame)) => {
                    trailers = frame.into_trailers().unwrap_or_default();
                    ended = Status::from_header_map(&trailers);
                }
                Some(Err(error)) => ended = Some(error),
                None => ended = Some(incomplete()),
            }
            while let Some(message) = frames.next() {
                match codec.write(&method, message) {
                    Ok(message) => yield Ok(Frame::data(envelope(0, &message))),
                    Err(fault) => ended = Some(fault),
                }
            }
        }
        if let Some(status) = ended {
            yield Ok(Frame::data(last(&context, &status, &trailers)));
        }
    }
}

fn envelope(flags: u8, content: &[u8]) -> Bytes {
    let mut envelope = BytesMut::with_capacity(PREFIX_BYTES + content.len());
    envelope.put_u8(flags);
    // Messages are bounded far below 4 GiB.
    envelope.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    envelope.put_slice(content);
    envelope.freeze()
}

/// How a stream ended.
fn last(context: &Context, status: &Status, trailers: &HeaderMap) -> Bytes {
    let mut end = json!({});
    if status.code() != Code::Ok {
        end["error"] = refusal_value(&context.contract, status);
    }
    for (name, value) in trailers.iter().filter(|(name, _)| is_metadata(name.as_str())) {
        let value = Value::from(String::from_utf8_lossy(value.as_bytes()));
        match &mut end["metadata"][name.as_str()] {
            Value::Array(values) => values.push(value),
            none => *none = json!([value]),
        }
    }
    envelope(LAST, end.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_says_how_a_call_is_written() {
        let of = |text: &str| Form::of(text.as_bytes()).map(Form::content_type);
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
    fn a_request_that_streams_back_is_one_envelope() {
        assert_eq!(only_message(envelope(0, b"{}")).unwrap(), "{}");
        assert_eq!(only_message(envelope(0, b"")).unwrap(), "");
        let two = Bytes::from([envelope(0, b"{}"), envelope(0, b"{}")].concat());
        let short = envelope(0, b"{}").slice(..6);
        for bad in [Bytes::new(), Bytes::from_static(b"{}"), envelope(LAST, b"{}"), two, short] {
            assert_eq!(only_message(bad).unwrap_err().code(), Code::InvalidArgument);
        }
        assert_eq!(only_message(envelope(COMPRESSED, b"x")).unwrap_err().code(), Code::Unimplemented);
    }

    #[tokio::test(start_paused = true)]
    async fn the_callers_patience_is_at_most_ten_digits_of_milliseconds() {
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
