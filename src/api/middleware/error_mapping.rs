//! Gives the errors that tonic itself creates the codes and the `ErrorInfo` of the contract.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::api::status::{self, EdgeError};
use crate::model::ErrorCode;

use super::call_future::{CallFuture, MapResponse};
use super::layered_body::{LayeredBody, PolledFrame, WatchFrames, trailers};

#[derive(Clone)]
pub struct ErrorMappingLayer;

impl<S> Layer<S> for ErrorMappingLayer {
    type Service = ErrorMapping<S>;

    fn layer(&self, inner: S) -> ErrorMapping<S> {
        ErrorMapping { inner }
    }
}

#[derive(Clone)]
pub struct ErrorMapping<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for ErrorMapping<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<MappedBody<R>>;
    type Error = Infallible;
    type Future = CallFuture<S::Future, MapErrors>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        CallFuture::called(self.inner.call(request), MapErrors)
    }
}

pub struct MapErrors;

impl<R: Default> MapResponse<R> for MapErrors {
    type Body = MappedBody<R>;

    fn map(self, response: Response<R>) -> Response<MappedBody<R>> {
        match mapped(response.headers()) {
            Some(status) => status.into_http(),
            None => response.map(|inner| LayeredBody::new(inner, Some(self))),
        }
    }
}

pub type MappedBody<B> = LayeredBody<B, MapErrors>;

impl WatchFrames for MapErrors {
    fn after_poll(&mut self, frame: &PolledFrame, _: &mut Context<'_>) -> Option<Status> {
        trailers(frame).and_then(mapped)
    }
}

/// The status to send instead; `None` if these headers or trailers are right as they are.
fn mapped(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get("grpc-status")?;
    if code != "11" && code != "13" && code != "8" {
        return None;
    }
    // Our own errors always have details.
    let found = Status::from_header_map(headers).filter(|found| found.details().is_empty())?;
    let code = match found.code() {
        // Other servers, and the contract, use RESOURCE_EXHAUSTED.
        Code::OutOfRange if found.message().contains("decoded message length too large") => ErrorCode::MessageTooLarge,
        Code::ResourceExhausted => ErrorCode::MessageTooLarge,
        // The caller sent bytes that are not a message.
        Code::Internal if found.message().starts_with("failed to decode Protobuf message") => ErrorCode::InvalidField,
        _ => return None,
    };
    Some(status::to_status(&EdgeError { code, message: found.message().to_owned() }))
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::scheduler::Internal;

    fn mapped_status(status: Status) -> Option<Status> {
        mapped(status.into_http::<()>().headers())
    }

    #[test]
    fn errors_of_tonic_get_the_codes_of_the_contract() {
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
        let large = mapped_status(Status::out_of_range(large)).unwrap();
        assert_eq!(large.code(), Code::ResourceExhausted);
        assert_eq!(large.get_details_error_info().unwrap().reason, "MESSAGE_TOO_LARGE");
        let garbage = mapped_status(Status::internal("failed to decode Protobuf message: invalid varint"));
        assert_eq!(garbage.unwrap().code(), Code::InvalidArgument);
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        assert!(mapped_status(status::to_status(&Internal { cause: "failed".to_owned() })).is_none());
        assert!(mapped_status(Status::out_of_range("revision")).is_none());
    }
}
