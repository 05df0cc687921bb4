//! Calls of the gRPC services from inside the server, on behalf of an HTTP request.
//!
//! They pass the same layers as calls from the network. They carry the identity of the admitted request, so
//! that the caller is authenticated and admitted once.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use tonic::codegen::http::{Extensions, HeaderMap, Method, Request, Response, Uri, Version, request};
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::api::middleware::admission::Admission;
use crate::api::middleware::grpc_timeout;
use crate::api::middleware::response_memory::ReplyMemory;
use crate::api::status;
use crate::scheduler::Internal;

use super::context::{Calls, Context};

/// Bytes before each message: one byte of flags, four of length.
pub const PREFIX_BYTES: usize = 5;

/// Headers of one connection or of one encoding, which are not forwarded; nor are the credentials, because the
/// call carries the identity that they proved.
const HOP_BY_HOP_HEADERS: [&str; 15] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Calls the services on behalf of one admitted request. Holds the slot of the request.
pub struct LoopbackClient {
    calls: Calls,
    headers: HeaderMap,
    extensions: Extensions,
    deadline: Option<Instant>,
    memory: ReplyMemory,
    _admission: Admission,
}

/// The response of a unary call.
pub struct Reply {
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
    pub message: Bytes,
}

impl LoopbackClient {
    /// Calls carry the other headers of the request, such as its trace context.
    pub fn new(context: &Context, request: &request::Parts, deadline: Option<Instant>, admission: Admission) -> Self {
        let is_forwarded = |name: &HeaderName| {
            let name = name.as_str();
            !HOP_BY_HOP_HEADERS.contains(&name) && !name.starts_with("grpc-") && !name.starts_with("connect-")
        };
        let headers = request.headers.iter().filter(|(name, _)| is_forwarded(name));
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut extensions = request.extensions.clone();
        extensions.insert(admission.admitted.clone());
        let memory = ReplyMemory::default();
        Self { calls: context.calls.clone(), headers, extensions, deadline, memory, _admission: admission }
    }

    /// The memory of the last reply, for the response that is made from it.
    pub fn memory(&self) -> ReplyMemory {
        self.memory.clone()
    }

    /// Starts a call with one message.
    pub async fn open(&self, path: &str, message: Vec<u8>) -> Response<Body> {
        let mut request = Request::new(Body::new(Full::new(framed(message))));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::try_from(path).unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(deadline) = self.deadline {
            headers.insert("grpc-timeout", grpc_timeout::remaining(deadline));
        }
        match self.calls.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Makes a unary call with encoded messages.
    ///
    /// # Errors
    /// The status of the service, with the headers or trailers that contained it.
    pub async fn unary(&self, path: &str, message: Vec<u8>) -> Result<Reply, (Status, HeaderMap)> {
        let (mut head, body) = self.open(path, message).await.into_parts();
        self.memory.set(head.extensions.remove());
        if let Some(refused) = Status::from_header_map(&head.headers)
            && refused.code() != Code::Ok
        {
            return Err((refused, head.headers));
        }
        let collected = body.collect().await.map_err(|error| (error, HeaderMap::new()))?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        match Status::from_header_map(&trailers) {
            Some(status) if status.code() == Code::Ok => {}
            Some(refused) => return Err((refused, trailers)),
            None => return Err((incomplete(), HeaderMap::new())),
        }
        let mut frames = Frames::default();
        frames.push(&collected.to_bytes());
        let message = frames.next().ok_or_else(|| (incomplete(), HeaderMap::new()))?;
        Ok(Reply { headers: head.headers, trailers, message })
    }

    /// Makes a unary call with messages of the contract.
    ///
    /// # Errors
    /// The status of the service.
    pub async fn rpc<Q: Message, A: Message + Default>(&self, path: &str, request: &Q) -> Result<A, Status> {
        let reply = self.unary(path, request.encode_to_vec()).await.map_err(|(refused, _)| refused)?;
        decoded(reply.message)
    }
}

fn decoded<A: Message + Default>(message: Bytes) -> Result<A, Status> {
    A::decode(message).map_err(|error| status::to_status(&Internal { cause: error.to_string() }))
}

/// The error for a response without a status, which only a defect of the server can cause.
pub fn incomplete() -> Status {
    status::to_status(&Internal { cause: "a service ended its response without a status".to_owned() })
}

fn framed(mut message: Vec<u8>) -> Bytes {
    // Messages are limited far below 4 GiB before.
    let [a, b, c, d] = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    message.splice(0..0, [0, a, b, c, d]);
    message.into()
}

/// Splits a gRPC body into messages. The pieces of the body may end anywhere.
#[derive(Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next complete message.
    pub fn next(&mut self) -> Option<Bytes> {
        let prefix: [u8; PREFIX_BYTES] = *self.buffer.first_chunk()?;
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if self.buffer.len() < PREFIX_BYTES + length {
            return None;
        }
        let mut frame = self.buffer.split_to(PREFIX_BYTES + length);
        Some(frame.split_off(PREFIX_BYTES).freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::api::auth::AccessControl;
    use crate::api::http::descriptors::Contract;
    use crate::api::middleware::admission::AdmissionControl;
    use crate::api::middleware::call_slots::CallSlots;
    use crate::api::middleware::public_places::PublicPlaces;
    use crate::model::MemoryAccount;

    #[test]
    fn messages_are_split_wherever_the_pieces_end() {
        let whole = ["one", "", "three"].map(|text| framed(text.into())).concat();
        for size in 1..=whole.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in whole.chunks(size) {
                frames.push(piece);
                while let Some(message) = frames.next() {
                    found.push(message);
                }
            }
            assert_eq!(found, [&b"one"[..], b"", b"three"], "pieces of {size}");
        }
    }

    #[test]
    fn the_trace_is_forwarded_and_credentials_and_headers_of_the_connection_are_not() {
        let mut request = Request::new(());
        for name in ["authorization", "traceparent", "host", "content-length", "grpc-encoding", "connect-timeout-ms"] {
            request.headers_mut().insert(name, HeaderValue::from_static("x"));
        }
        let context = Context {
            calls: Calls::new(tower::service_fn(|_| async { Ok(Response::default()) })),
            admission: AdmissionControl::new(AccessControl::default(), CallSlots::new(1, 1), PublicPlaces::default()),
            contract: Arc::new(Contract::new().unwrap()),
            body_timeout: Duration::ZERO,
            memory: MemoryAccount::new(|_| 0),
            payload_limit: crate::model::limits::PayloadLimit::default(),
        };
        let head = request.into_parts().0;
        let admission = context.admit(&head).unwrap();
        let client = LoopbackClient::new(&context, &head, None, admission);
        let mut names: Vec<_> = client.headers.keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, ["traceparent"]);
    }
}
