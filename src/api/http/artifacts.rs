//! Downloads of artifacts: `GET /artifacts/{task}/{name}`, whole or in ranges, for callers and for links that need no token.
//!
//! A browser never shows what a task has left as a page of this server: it is an attachment, of the type that it was given.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use tonic::codegen::http::{Method, Request, Response, StatusCode, request};
use tonic::{Code, Status};

use crate::api::auth::ConnectionInfo;
use crate::api::convert::InvalidFields;
use crate::api::convert::numbers::to_i64;
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::services::artifacts::{Linked, OpenLink};
use crate::api::status::into_status;
use crate::artifacts::LinkTarget;
use crate::model::{ArtifactName, ErrorCode, TaskId};
use crate::proto::v1;
use crate::scheduler::ArtifactNotFound;

use super::connect;
use super::context::Context;
use super::loopback::{Frames, LoopbackClient, incomplete};
use super::query::Query;
use super::response::{self, edge_error, error_with_status, method_not_allowed};
use super::ui::lists_etag;

pub const PREFIX: &str = "/artifacts/";
const SERVICE: &str = "/lineshaft.v1.ArtifactService";
/// Characters of `filename*` that stand for themselves, of those that RFC 8187 allows.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Responds to a request whose path begins with [`PREFIX`].
pub async fn respond(context: &Context, open_link: &OpenLink, request: Request<Body>) -> Response<Body> {
    let contract = &context.contract;
    let Some(path) = ArtifactPath::parse(request.uri().path()) else {
        let status = edge_error(ErrorCode::Unsupported, "not found; an artifact is at `/artifacts/{task}/{name}`");
        return error_with_status(StatusCode::NOT_FOUND, contract, &status);
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed(contract, "GET");
    }
    let (head, _) = request.into_parts();
    let downloaded = match Query::parse(head.uri.query()) {
        Ok(query) if query.others.is_empty() => download(context, path, &head).await,
        Ok(query) => match path.with_link(query) {
            Ok((target, signature)) => download_linked(context, open_link, target, signature, &head).await,
            Err(invalid) => Err(into_status(invalid)),
        },
        Err(status) => Err(status),
    };
    downloaded.unwrap_or_else(|status| response::error(contract, &status))
}

#[derive(Debug, PartialEq, Eq)]
struct ArtifactPath {
    task: String,
    name: String,
}

impl ArtifactPath {
    /// `{task}/{name}` or `{namespace}/{task}/{name}`.
    fn parse(path: &str) -> Option<Self> {
        let segments = path.strip_prefix(PREFIX)?.split('/').map(|segment| {
            let decoded = percent_decode_str(segment).decode_utf8().ok()?.into_owned();
            Some(decoded).filter(|decoded| !decoded.is_empty())
        });
        match &segments.collect::<Option<Vec<_>>>()?[..] {
            [task, name] => Some(Self { task: task.clone(), name: name.clone() }),
            [namespace, task, name] => Some(Self { task: format!("{namespace}/{task}"), name: name.clone() }),
            _ => None,
        }
    }

    /// What a link with this query leads to, and its signature.
    fn with_link(&self, mut query: Query) -> Result<(LinkTarget, String), InvalidFields> {
        let mut invalid = InvalidFields::default();
        let mut text = |name: &str| query.others.remove(name).and_then(|value| value.as_str().map(str::to_owned));
        let (attempt, expires, signature) = (text("attempt"), text("expires"), text("signature"));
        let mut number = |name, value: Option<String>| {
            let number = value.and_then(|value| value.parse().ok());
            number.unwrap_or_else(|| {
                invalid.add(name, "must be the number that the link has");
                0
            })
        };
        let (fence, expires) = (number("attempt", attempt), number("expires", expires));
        if signature.is_none() {
            invalid.add("signature", "is required in a link");
        }
        if let Some(name) = query.others.keys().next() {
            invalid.add(name, "is unknown; expected attempt, expires, signature");
        }
        let task = invalid.parsed("task_id", TaskId::parse(&self.task));
        let name = ArtifactName::parse(&self.name).map_err(|error| invalid.add("name", error)).ok();
        invalid.check()?;
        let (Some(task), Some(name), Some(signature)) = (task, name, signature) else {
            return Err(InvalidFields::one("name", "is required"));
        };
        Ok((LinkTarget { task, fence, name, expires }, signature))
    }
}

/// For a caller, with the caller's rights.
async fn download(context: &Context, path: ArtifactPath, head: &request::Parts) -> Result<Response<Body>, Status> {
    let ArtifactPath { task: task_id, name } = path;
    let deadline = connect::deadline(&head.headers)?;
    let client = LoopbackClient::new(context, head, deadline, context.admit(head)?);
    let request = v1::ListArtifactsRequest { task_id: task_id.clone(), link_lifetime: None };
    let listed: v1::ListArtifactsResponse = client.rpc(&format!("{SERVICE}/ListArtifacts"), &request).await?;
    let Some(artifact) = listed.artifacts.into_iter().find(|artifact| artifact.name == name) else {
        let name = ArtifactName::parse(&name).map_err(|error| into_status(InvalidFields::one("name", error)))?;
        return Err(into_status(ArtifactNotFound { task: task_id, name }));
    };
    let plan = Plan::of(head, &artifact);
    let range = plan.content(head, &artifact);
    if range.is_empty() {
        return Ok(plan.response(artifact, Body::empty()));
    }
    let (offset, length) = (to_i64(range.start), to_i64(range.end - range.start));
    let request = v1::ReadArtifactRequest { task_id, name, offset, length };
    let (mut answer, body) =
        client.open(&format!("{SERVICE}/ReadArtifact"), request.encode_to_vec()).await.into_parts();
    if let Some(refused) = Status::from_header_map(&answer.headers)
        && refused.code() != Code::Ok
    {
        return Err(refused);
    }
    let mut response = plan.response(artifact, Body::new(StreamBody::new(data_of(body))));
    if let Some(memory) = answer.extensions.remove::<ResponseMemory>() {
        response.extensions_mut().insert(memory);
    }
    Ok(response)
}

/// The data of the messages of ReadArtifact.
fn data_of(mut body: Body) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Status>> {
    async_stream::try_stream! {
        let mut frames = Frames::default();
        loop {
            let frame = body.frame().await.ok_or_else(incomplete)??;
            match frame.into_data() {
                Ok(data) => frames.push(&data),
                Err(frame) => {
                    let status = frame.into_trailers().ok().and_then(|trailers| Status::from_header_map(&trailers));
                    match status {
                        Some(status) if status.code() == Code::Ok => break,
                        // Ends the response before its length, so that the client sees that it is incomplete.
                        other => Err(other.unwrap_or_else(incomplete))?,
                    }
                }
            }
            while let Some(message) = frames.next() {
                let message = v1::ReadArtifactResponse::decode(message).map_err(|_| incomplete())?;
                if !message.data.is_empty() {
                    yield Frame::data(message.data);
                }
            }
        }
    }
}

/// For a client that has a link.
async fn download_linked(
    context: &Context,
    open_link: &OpenLink,
    target: LinkTarget,
    signature: String,
    head: &request::Parts,
) -> Result<Response<Body>, Status> {
    let slot = context.admission.admit_link(head)?;
    let Linked { artifact, content } = open_link(target, signature).await?;
    let plan = Plan::of(head, &artifact);
    let range = plan.content(head, &artifact);
    if range.is_empty() {
        return Ok(plan.response(artifact, Body::empty()));
    }
    let parts = content(range).await?.map(move |data| {
        let _slot = &slot;
        data.map(Frame::data)
    });
    let mut response = plan.response(artifact, Body::new(StreamBody::new(parts)));
    let network: Arc<str> = ConnectionInfo::of(&head.extensions).network().to_string().into();
    response.extensions_mut().insert(ResponseMemory::Stream(network));
    Ok(response)
}

/// What the conditions of a request ask for.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Whole,
    Part(Range<u64>),
    NotModified,
    Unsatisfiable,
}

fn size(artifact: &v1::Artifact) -> u64 {
    u64::try_from(artifact.size_bytes).unwrap_or(0)
}

fn etag(artifact: &v1::Artifact) -> HeaderValue {
    header(format!("\"{}\"", artifact.sha256))
}

/// A value of characters that a header may have.
fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

impl Plan {
    fn of(head: &request::Parts, artifact: &v1::Artifact) -> Self {
        let (headers, etag) = (&head.headers, etag(artifact));
        if headers.get_all(IF_NONE_MATCH).iter().any(|known| lists_etag(known, &etag)) {
            return Self::NotModified;
        }
        // A range of another content would be of no use.
        let is_other = headers.get(IF_RANGE).is_some_and(|known| *known != etag);
        if is_other || head.method == Method::HEAD {
            return Self::Whole;
        }
        Self::of_range(headers, size(artifact))
    }

    /// The part of the content that the response has.
    fn content(&self, head: &request::Parts, artifact: &v1::Artifact) -> Range<u64> {
        match self {
            Self::Whole if head.method != Method::HEAD => 0..size(artifact),
            Self::Part(range) => range.clone(),
            Self::Whole | Self::NotModified | Self::Unsatisfiable => 0..0,
        }
    }

    /// A range that is malformed, or more than one, is ignored, as RFC 9110 allows.
    fn of_range(headers: &HeaderMap, size: u64) -> Self {
        let range = headers.get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else { return Self::Whole };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit are beyond every file.
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        let range = match (first, last) {
            ("", last) if is_number(last) => size.saturating_sub(number(last))..size,
            (first, "") if is_number(first) => number(first)..size,
            (first, last) if is_number(first) && is_number(last) && number(first) <= number(last) => {
                number(first)..size.min(number(last).saturating_add(1))
            }
            _ => return Self::Whole,
        };
        if range.is_empty() { Self::Unsatisfiable } else { Self::Part(range) }
    }

    /// `body` has the content that the plan asks for.
    fn response(self, artifact: v1::Artifact, body: Body) -> Response<Body> {
        let size = size(&artifact);
        let (status, length, range) = match self {
            Self::Whole => (StatusCode::OK, Some(size), None),
            Self::Part(range) => {
                let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (StatusCode::PARTIAL_CONTENT, Some(range.end - range.start), Some(text))
            }
            Self::NotModified => (StatusCode::NOT_MODIFIED, None, None),
            Self::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, Some(0), Some(format!("bytes */{size}"))),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: HeaderValue| drop(headers.insert(name, value));
        set(ETAG, etag(&artifact));
        set(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        set(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        set(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        set(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
        set(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(length) = length {
            set(CONTENT_LENGTH, length.into());
            set(CONTENT_TYPE, header(artifact.content_type));
            set(CONTENT_DISPOSITION, header(disposition(&artifact.name)));
        }
        if let Some(range) = range {
            set(CONTENT_RANGE, header(range));
        }
        response
    }
}

/// `attachment` with the name for all clients, and exactly for those that know RFC 8187.
fn disposition(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' { c } else { '_' };
    let fallback: String = name.chars().map(plain).collect();
    let exact = utf8_percent_encode(name, UNRESERVED);
    if fallback == name {
        format!("attachment; filename=\"{fallback}\"")
    } else {
        format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{exact}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_task_and_a_name() {
        let of = |path| ArtifactPath::parse(path).map(|ArtifactPath { task, name }| (task, name));
        let found = |task: &str, name: &str| Some((task.to_owned(), name.to_owned()));
        assert_eq!(of("/artifacts/t/a%20b"), found("t", "a b"));
        assert_eq!(of("/artifacts/team/t/%C3%BC.csv"), found("team/t", "ü.csv"));
        assert_eq!(of("/artifacts/team%2Ft/a"), found("team/t", "a"));
        assert_eq!(of("/artifacts/t/..%2F..%2Fpasswd"), found("t", "../../passwd"), "no valid name");
        for path in
            ["/artifacts/", "/artifacts/t", "/artifacts/t/", "/artifacts//a", "/artifacts/a/b/c/d", "/artifacts/t/%FF"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn ranges_are_parsed_as_rfc_9110_says() {
        let of = |range: &'static str, size| {
            Plan::of_range(&HeaderMap::from_iter([(RANGE, HeaderValue::from_static(range))]), size)
        };
        for (range, expected) in [
            ("bytes=0-0", Plan::Part(0..1)),
            ("bytes=2-", Plan::Part(2..10)),
            ("bytes=-3", Plan::Part(7..10)),
            ("bytes=-99", Plan::Part(0..10)),
            ("bytes=5-99999999999999999999999", Plan::Part(5..10)),
            ("bytes=10-", Plan::Unsatisfiable),
            ("bytes=-0", Plan::Unsatisfiable),
            ("bytes=99999999999999999999999-", Plan::Unsatisfiable),
            ("bytes=3-2", Plan::Whole),
            ("bytes=0-1,4-5", Plan::Whole),
            ("bytes=+1-2", Plan::Whole),
            ("bytes=-", Plan::Whole),
            ("lines=0-1", Plan::Whole),
        ] {
            assert_eq!(of(range, 10), expected, "{range}");
        }
        assert_eq!(of("bytes=0-", 0), Plan::Unsatisfiable);
    }

    #[test]
    fn a_name_cannot_leave_its_header() {
        assert_eq!(disposition("a b.csv"), "attachment; filename=\"a b.csv\"");
        let expected = "attachment; filename=\"__b_.csv\"; filename*=UTF-8''%22%5Cb%25.csv";
        assert_eq!(disposition("\"\\b%.csv"), expected);
        assert_eq!(disposition("一.csv"), "attachment; filename=\"_.csv\"; filename*=UTF-8''%E4%B8%80.csv");
        assert_eq!(disposition("a\r\nx: y"), "attachment; filename=\"a__x: y\"; filename*=UTF-8''a%0D%0Ax%3A%20y");
    }
}
