//! A call's place in a trace: taken from its headers, told to what runs for it, and ended as a span.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};

use crate::model::TraceContext;
use crate::telemetry::propagation;
use crate::telemetry::scope::{self, ActiveContext, Scope};
use crate::telemetry::trace::{self, Span};

/// Calls to the house's own services; checks of health and reflection would drown them.
const SERVICES: &str = "/lineshaft.";
/// gRPC's CANCELLED: the caller went away before the end.
const CANCELLED: i32 = 1;

/// A call that stands in a trace.
pub struct Traced {
    /// When spans are exported.
    span: Option<Span>,
    /// The caller's, otherwise.
    place: Option<ActiveContext>,
}

impl Scope for Traced {
    fn active_context(&self) -> Option<&ActiveContext> {
        self.span.as_ref().map(Span::active_context).or(self.place.as_ref())
    }
}

impl Traced {
    /// `None` when nobody traces it.
    pub fn begin<B>(request: &Request<B>, peer: Option<SocketAddr>) -> Option<Arc<Self>> {
        let method = request.uri().path();
        if !method.starts_with(SERVICES) {
            return None;
        }
        let place = caller(request.headers()).map(|context| ActiveContext::new(Arc::new(context)));
        match trace::tracer() {
            Some(tracer) => {
                let span = tracer.call(&method[1..], place.as_ref(), peer);
                Some(Arc::new(Self { span: Some(span), place: None }))
            }
            None => place.map(|place| Arc::new(Self { span: None, place: Some(place) })),
        }
    }

    /// The answer and its body, made in the scope of the call.
    pub fn follow<E: Send + 'static>(
        self: Arc<Self>,
        answer: BoxFuture<'static, Result<Response<Body>, E>>,
    ) -> BoxFuture<'static, Result<Response<Body>, E>> {
        async move {
            let mut call = Call { traced: self.clone(), code: None };
            let response = scope::within(self.clone(), answer).await?;
            call.code = code(response.headers());
            Ok(response.map(|inner| Body::new(TracedBody { inner, call })))
        }
        .boxed()
    }
}

/// Ends the span, with a code or as one whose caller has gone.
struct Call {
    traced: Arc<Traced>,
    code: Option<i32>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(span) = &self.traced.span {
            span.end_call(self.code.unwrap_or(CANCELLED));
        }
    }
}

/// A body that is made in the scope of its call, and looks for its status.
struct TracedBody {
    inner: Body,
    call: Call,
}

impl http_body::Body for TracedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let _entered = scope::enter(self.call.traced.clone());
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(found) = frame.trailers_ref().and_then(code) {
                    self.call.code = Some(found);
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.code = Some(status.code() as i32),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn code(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What the caller says about its place, as far as the operator lets it travel.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let (states, baggages) = (OnceCell::new(), OnceCell::new());
    propagation::installed().extract(|name| {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next()?;
        let several = match name {
            "tracestate" => &states,
            "baggage" => &baggages,
            _ => return first.to_str().ok(),
        };
        if lines.next().is_none() {
            first.to_str().ok()
        } else {
            several.get_or_init(|| joined(headers, name)).as_deref()
        }
    })
}

/// The lines of a list, which mean the same as one line with commas; `None` when one of them is malformed.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Result<Vec<_>, _> = headers.get_all(name).iter().map(HeaderValue::to_str).collect();
    lines.ok().map(|lines| lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn call(path: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    }

    #[tokio::test]
    async fn the_callers_place_is_that_of_what_runs_for_the_call() {
        let request = call("/lineshaft.v1.TaskService/SubmitTask", &[("traceparent", PARENT), ("baggage", "user=7")]);
        let traced = Traced::begin(&request, None).unwrap();
        let seen = async { Ok::<_, ()>(scope::current_context().map(|place| place.context)) };
        let inner = async {
            let context = seen.await?.ok_or(())?;
            assert_eq!((context.traceparent().as_deref(), &*context.baggage), (Some(PARENT), "user=7"));
            Ok::<_, ()>(Response::new(Body::empty()))
        };
        assert!(traced.follow(inner.boxed()).await.is_ok());
        assert!(scope::current_context().is_none());
    }

    #[test]
    fn a_list_may_come_in_several_lines() {
        let of = |more: &[(&'static str, &'static str)]| {
            let headers = [&[("traceparent", PARENT)][..], more].concat();
            let place = Traced::begin(&call("/lineshaft.v1.TaskService/GetTask", &headers), None).unwrap();
            let context = place.active_context().unwrap().context.clone();
            (context.state.to_string(), context.baggage.to_string())
        };
        let lines = [("tracestate", "a=1"), ("baggage", "user=7"), ("tracestate", "b=2,c=3"), ("baggage", "at=8")];
        assert_eq!(of(&lines), ("a=1,b=2,c=3".to_owned(), "user=7,at=8".to_owned()));
        assert_eq!(of(&lines[..2]), ("a=1".to_owned(), "user=7".to_owned()));
        let torn = [("tracestate", "a=1"), ("tracestate", "b=\u{e4}"), ("baggage", "user=7")];
        assert_eq!(of(&torn), (String::new(), "user=7".to_owned()));
    }

    #[test]
    fn calls_of_others_and_calls_without_a_word_cost_nothing() {
        assert!(Traced::begin(&call("/grpc.health.v1.Health/Check", &[("traceparent", PARENT)]), None).is_none());
        assert!(Traced::begin(&call("/lineshaft.v1.TaskService/GetTask", &[]), None).is_none());
        assert!(Traced::begin(&call("/lineshaft.v1.TaskService/GetTask", &[("traceparent", "x")]), None).is_none());
    }
}
