//! The response future of layers that refuse calls or change responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tonic::Status;
use tonic::codegen::http::Response;

/// What a layer does with the response of the service below it.
pub trait MapResponse<B> {
    /// `Default` is the empty body, for a refusal.
    type Body: Default;

    fn map(self, response: Response<B>) -> Response<Self::Body>;
}

pin_project! {
    /// Either a refusal, or the call of the service below and the handling of its response.
    #[project = Projected]
    pub enum CallFuture<F, M> {
        Refused { status: Option<Box<Status>> },
        Called { #[pin] inner: F, map: Option<M> },
    }
}

impl<F, M> CallFuture<F, M> {
    pub fn refused(status: Box<Status>) -> Self {
        Self::Refused { status: Some(status) }
    }

    pub fn called(inner: F, map: M) -> Self {
        Self::Called { inner, map: Some(map) }
    }
}

impl<F, M, B> Future for CallFuture<F, M>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    M: MapResponse<B>,
{
    type Output = Result<Response<M::Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Refused { status } => {
                let status = status.take().expect("not polled again after completion");
                Poll::Ready(Ok(status.into_http()))
            }
            Projected::Called { inner, map } => {
                let Poll::Ready(Ok(response)) = inner.poll(context) else { return Poll::Pending };
                let map = map.take().expect("not polled again after completion");
                Poll::Ready(Ok(map.map(response)))
            }
        }
    }
}
