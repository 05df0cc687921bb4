//! Turns a panic of a service into INTERNAL. The text of the panic goes to the log only.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::api::status;
use crate::scheduler::Internal;

use super::layered_body::{PolledFrame, trailers_frame};

#[derive(Clone)]
pub struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

#[derive(Clone)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for CatchPanic<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<PanicBody<R>>;
    type Error = Infallible;
    type Future = PanicFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => PanicFuture { inner: Some(inner), refused: None },
            Err(panic) => PanicFuture { inner: None, refused: Some(internal(&*panic)) },
        }
    }
}

fn internal(panic: &(dyn Any + Send)) -> Status {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    status::to_status(&Internal { cause: format!("a call panicked: {text}") })
}

pin_project! {
    pub struct PanicFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<Status>,
    }
}

impl<F, R> Future for PanicFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
    R: Default,
{
    type Output = Result<Response<PanicBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.inner.as_pin_mut() {
            Some(inner) => catch_unwind(AssertUnwindSafe(|| inner.poll(context))),
            None => Ok(Poll::Pending),
        };
        match (polled, this.refused.take()) {
            (_, Some(status)) => Poll::Ready(Ok(status.into_http())),
            (Err(panic), None) => Poll::Ready(Ok(internal(&*panic).into_http())),
            (Ok(Poll::Ready(Ok(response))), None) => {
                Poll::Ready(Ok(response.map(|inner| PanicBody { inner, ended: false })))
            }
            (Ok(Poll::Pending), None) => Poll::Pending,
        }
    }
}

/// A response body that ends with INTERNAL after a panic.
#[derive(Default)]
pub struct PanicBody<B> {
    inner: B,
    ended: bool,
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for PanicBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        if self.ended {
            return Poll::Ready(None);
        }
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.inner).poll_frame(context))).unwrap_or_else(|panic| {
            self.ended = true;
            Poll::Ready(Some(trailers_frame(&internal(&*panic))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::body::Body;

    use super::super::test_support::{Endless, next_frame, request, service, status};
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_call_becomes_internal_without_its_text() {
        let mut layered = CatchPanicLayer.layer(service(|| async { panic!("secret") }));
        let response = layered.call(request(&[])).await.unwrap();
        assert_eq!(status(response.headers()).code(), Code::Internal);
        assert!(!format!("{:?}", response.headers()).contains("secret"));
    }

    #[tokio::test]
    async fn a_panic_in_a_body_becomes_internal() {
        let mut layered = CatchPanicLayer.layer(service(|| async { Ok(Response::new(Body::new(Endless::Panics))) }));
        let mut body = layered.call(request(&[])).await.unwrap().into_body();
        let trailers = next_frame(&mut body).await.unwrap().into_trailers().unwrap();
        assert_eq!(status(&trailers).code(), Code::Internal);
        assert!(next_frame(&mut body).await.is_none());
    }
}
