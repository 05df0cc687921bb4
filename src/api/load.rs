//! Sheds load and tidies up what the framework answers by itself.
//!
//! Calls that wait for an answer are counted over the whole server; one too many is refused at once
//! instead of queueing. A stream counts until its headers are out: open watches do not use up the bound.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tower::{Layer, Service};

use crate::model::ErrorCode;

use super::status::{self, EdgeError};

#[derive(Clone)]
pub(super) struct LoadLayer {
    places: Arc<Semaphore>,
}

impl LoadLayer {
    pub fn new(max_in_flight: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max_in_flight)) }
    }
}

impl<S> Layer<S> for LoadLayer {
    type Service = Load<S>;

    fn layer(&self, inner: S) -> Load<S> {
        Load { inner, places: self.places.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Load<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S, B> Service<http::Request<B>> for Load<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let message = "too many calls are under way".to_owned();
            let refusal = status::of(&EdgeError { code: ErrorCode::Overloaded, message });
            return std::future::ready(Ok(refusal.into_http())).boxed();
        };
        let answer = self.inner.call(request);
        async move {
            let response = answer.await;
            drop(place);
            response.map(tidy)
        }
        .boxed()
    }
}

/// The framework says OUT_OF_RANGE of a message that is too large; other servers, and we, say
/// RESOURCE_EXHAUSTED.
fn tidy(response: http::Response<Body>) -> http::Response<Body> {
    let Some(found) = Status::from_header_map(response.headers()) else { return response };
    if found.code() != tonic::Code::OutOfRange || !found.message().contains("message length too large") {
        return response;
    }
    let error = EdgeError { code: ErrorCode::MessageTooLarge, message: found.message().to_owned() };
    status::of(&error).into_http()
}
