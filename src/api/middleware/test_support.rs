//! What the tests of several layers use: services, requests, and bodies that never end.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::util::ServiceFn;

pub const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub type Answer = Result<Response<Body>, Infallible>;

/// A service that answers every request in the same way.
pub fn service<F: Future<Output = Answer>>(
    answer: impl Fn() -> F + Clone,
) -> ServiceFn<impl FnMut(Request<Body>) -> F + Clone> {
    tower::service_fn(move |_| answer())
}

pub fn request(headers: &[(&'static str, &'static str)]) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

pub fn status(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).unwrap()
}

/// A response body that never ends.
pub enum Endless {
    Silent,
    Busy,
    Panics,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match *self {
            Self::Silent => Poll::Pending,
            Self::Busy => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x"))))),
            Self::Panics => panic!("in the body"),
        }
    }
}

pub async fn next_frame<B>(body: &mut B) -> Option<Frame<Bytes>>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin,
{
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.map(Result::unwrap)
}
