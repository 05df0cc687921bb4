//! Stands between a connection and the services.
//!
//! It sheds load, waits for no message for ever, applies the caller's deadline to the whole call, turns a
//! panic into INTERNAL, and says the framework's own refusals the house's way, with an `ErrorInfo`.
//!
//! Calls that wait for an answer are counted over the whole server; one too many is refused at once
//! instead of queueing. A stream counts until its headers are out: open watches do not use up the bound.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::Service;

use crate::model::ErrorCode;
use crate::scheduler::Internal;
use crate::telemetry::metrics::{Call, CallMeter, SampledSpan};
use crate::telemetry::scope::{self, ActiveContext};

use super::body_timeout::TimeoutBody;
use super::call_trace::Traced;
use super::deadline;
use crate::api::auth::{AccessControl, Authenticator, CertificateNames, takes_stream};
use crate::api::listener::accept::Edge;
use crate::api::status::{self, EdgeError};

/// The services as one connection sees them. Cheap to clone.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    places: Arc<Semaphore>,
    peer: Option<TcpConnectInfo>,
    meter: Option<Arc<CallMeter>>,
    entry: AccessControl,
    body_timeout: Option<Duration>,
}

impl<S> Guard<S> {
    pub fn new(inner: S, max_in_flight: usize) -> Self {
        let places = Arc::new(Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS)));
        Self { inner, places, peer: None, meter: None, entry: AccessControl::default(), body_timeout: None }
    }

    /// The same guard, which counts its calls there.
    pub fn counting(self, meter: Arc<CallMeter>) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// The same guard, which asks callers who they are; `None`: nobody is asked.
    pub fn asking(self, access: Option<Arc<Authenticator>>) -> Self {
        Self { entry: AccessControl::new(access), ..self }
    }

    /// The same guard, for which a message that does not come within that time does not come at all.
    pub fn patient(self, body_timeout: Duration) -> Self {
        Self { body_timeout: Some(body_timeout), ..self }
    }

    /// Whether the caller may see the page at that path.
    ///
    /// # Errors
    /// UNAUTHENTICATED, PERMISSION_DENIED.
    pub fn may_see(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        self.entry.may_see(path, headers).map_err(|status| *status)
    }

    /// A place for somebody who is known, before the rest of a request is read.
    ///
    /// # Errors
    /// UNAUTHENTICATED, OVERLOADED.
    pub fn place_for(&self, path: &str, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Status> {
        self.entry.know(path, headers)?;
        self.place()
    }

    /// A place among the calls under way; it is free again when dropped.
    ///
    /// # Errors
    /// OVERLOADED.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            let message = "too many calls are under way".to_owned();
            status::of(&EdgeError { code: ErrorCode::Overloaded, message })
        })
    }
}

impl<S> Edge for Guard<S>
where
    S: Service<Request<TimeoutBody<Incoming>>, Response = Response<Body>, Future: Send>,
    S::Error: std::fmt::Display + Send,
    S: Clone + Send + Sync + 'static,
{
    fn facing(&self, peer: TcpConnectInfo, certificate: Option<CertificateNames>) -> Self {
        let entry = self.entry.facing(peer.clone(), certificate);
        Self { peer: Some(peer), entry, ..self.clone() }
    }
}

impl<S, B> Service<Request<B>> for Guard<S>
where
    S: Service<Request<TimeoutBody<B>>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: std::fmt::Display + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router is always ready; one that is not says so in its answer.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = self.peer.as_ref().and_then(TcpConnectInfo::remote_addr);
        match Traced::begin(&request, peer) {
            Some(traced) => {
                let answer = {
                    let _entered = scope::enter(traced.clone());
                    self.answer(request)
                };
                traced.follow(answer)
            }
            None => self.answer(request),
        }
    }
}

impl<S> Guard<S> {
    fn answer<B>(&mut self, mut request: Request<B>) -> BoxFuture<'static, Result<Response<Body>, Infallible>>
    where
        S: Service<Request<TimeoutBody<B>>, Response = Response<Body>>,
        S::Future: Send + 'static,
        S::Error: std::fmt::Display + Send + 'static,
    {
        let deadline = deadline::of(request.headers());
        let counted = self.meter.as_ref().map(|meter| meter.begin(request.uri().path(), trace));
        let stay = match self.entry.admit(&mut request) {
            Ok(stay) => stay,
            Err(refused) => return answered(&refused, counted),
        };
        let place = match self.place() {
            Ok(place) => place,
            Err(refused) => return answered(&refused, counted),
        };
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let bound = self.body_timeout.filter(|_| !takes_stream(request.uri().path()));
        let request = request.map(|body| TimeoutBody::within(bound, body));
        let answer = match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(answer) => AssertUnwindSafe(answer).catch_unwind(),
            Err(panic) => return answered(&panicked(&*panic), counted),
        };
        async move {
            let answer = match deadline {
                Some(at) => timeout_at(at, answer).await,
                None => Ok(answer.await),
            };
            drop(place);
            Ok(match answer {
                Ok(Ok(Ok(response))) => {
                    let response = guarded(response, deadline, counted);
                    match stay {
                        Some(stay) => response.map(|body| stay.bound(body)),
                        None => response,
                    }
                }
                Ok(Ok(Err(error))) => ended(status::of(&Internal { cause: error.to_string() }), counted),
                Ok(Err(panic)) => ended(panicked(&*panic), counted),
                Err(_) => ended(too_late(), counted),
            })
        }
        .boxed()
    }
}

fn answered(status: &Status, counted: Option<Call>) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    std::future::ready(Ok(ended(status.clone(), counted))).boxed()
}

fn ended(status: Status, counted: Option<Call>) -> Response<Body> {
    if let Some(mut call) = counted {
        call.end(status.code().into());
    }
    status.into_http()
}

/// The call has ended, if headers or trailers say so.
fn note_end(counted: &mut Option<Call>, headers: &HeaderMap) {
    let status = headers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    if let (Some(call), Some(status)) = (counted, status) {
        call.end(status);
    }
}

/// The sampled span of the call, or the one that it comes from.
fn trace() -> Option<SampledSpan> {
    let ActiveContext { context, .. } = scope::current_context()?;
    SampledSpan::sampled(context.trace_id, context.span_id, context.flags)
}

fn guarded(response: Response<Body>, deadline: Option<Instant>, mut counted: Option<Call>) -> Response<Body> {
    if let Some(status) = reworded(response.headers()) {
        return ended(status, counted);
    }
    note_end(&mut counted, response.headers());
    response.map(|inner| {
        let deadline = deadline.map(|at| Box::pin(sleep_until(at)));
        Body::new(DeadlineBody { inner, deadline, ended: false, counted })
    })
}

/// A body that ends with a status at the deadline, and after a panic.
struct DeadlineBody {
    inner: Body,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
    counted: Option<Call>,
}

impl DeadlineBody {
    fn end_with(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        if let Some(call) = &mut self.counted {
            call.end(status.code().into());
        }
        Poll::Ready(Some(trailers(status)))
    }

    fn overdue(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
    }
}

impl http_body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.inner).poll_frame(context)));
        let frame = match polled {
            Err(panic) => return self.end_with(&panicked(&*panic)),
            Ok(Poll::Ready(Some(Ok(frame)))) => frame,
            Ok(Poll::Ready(end)) => return Poll::Ready(end),
            Ok(Poll::Pending) if self.overdue(context) => return self.end_with(&too_late()),
            Ok(Poll::Pending) => return Poll::Pending,
        };
        match frame.trailers_ref() {
            Some(last) => {
                if let Some(status) = reworded(last) {
                    return self.end_with(&status);
                }
                note_end(&mut self.counted, last);
                Poll::Ready(Some(Ok(frame)))
            }
            // A stream that is never quiet has to obey as well.
            None if self.overdue(context) => self.end_with(&too_late()),
            None => Poll::Ready(Some(Ok(frame))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut last = HeaderMap::new();
    status.add_header(&mut last)?;
    Ok(Frame::trailers(last))
}

fn too_late() -> Status {
    let message = "the call's deadline has passed".to_owned();
    status::of(&EdgeError { code: ErrorCode::DeadlineExceeded, message })
}

fn panicked(panic: &(dyn Any + Send)) -> Status {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    status::of(&Internal { cause: format!("a call panicked: {text}") })
}

/// What the framework says by itself, in the house's words.
fn reworded(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get("grpc-status")?;
    if code != "11" && code != "13" && code != "8" {
        return None;
    }
    let found = Status::from_header_map(headers).filter(|found| found.details().is_empty())?;
    let code = match found.code() {
        // Other servers, and the contract, say RESOURCE_EXHAUSTED.
        Code::OutOfRange if found.message().contains("decoded message length too large") => ErrorCode::MessageTooLarge,
        Code::ResourceExhausted => ErrorCode::MessageTooLarge,
        // Bytes that are no message are the caller's fault.
        Code::Internal if found.message().starts_with("failed to decode Protobuf message") => ErrorCode::InvalidField,
        _ => return None,
    };
    Some(status::of(&EdgeError { code, message: found.message().to_owned() }))
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tonic_types::StatusExt;

    use super::*;

    type Answer = Result<Response<Body>, Infallible>;

    fn call_with_timeout(timeout: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        request
    }

    fn guard<F>(
        answer: impl Fn() -> F + Clone,
    ) -> Guard<impl Service<Request<TimeoutBody<()>>, Response = Response<Body>, Error = Infallible, Future = F> + Clone>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Guard::new(tower::service_fn(move |_: Request<TimeoutBody<()>>| answer()), 1)
    }

    fn status_of(headers: &HeaderMap) -> (Code, String) {
        let status = Status::from_header_map(headers).unwrap();
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        (status.code(), reason)
    }

    /// Never quiet, or never there.
    struct Endless {
        quiet: bool,
        panics: bool,
    }

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            assert!(!self.panics, "in the body");
            if self.quiet { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x"))))) }
        }
    }

    async fn frame(body: &mut Body) -> Option<Frame<Bytes>> {
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.map(Result::unwrap)
    }

    #[tokio::test]
    async fn one_call_too_many_is_refused_at_once_and_told_when_to_come_back() {
        let mut guard = guard(std::future::pending::<Answer>);
        let _waiting = guard.call(call_with_timeout(None));
        let refused = guard.call(call_with_timeout(None)).await.unwrap();
        assert_eq!(status_of(refused.headers()), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
        let status = Status::from_header_map(refused.headers()).unwrap();
        assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_frees_its_place() {
        let mut guard = guard(std::future::pending::<Answer>);
        drop(guard.call(call_with_timeout(None)));
        assert_eq!(guard.places.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_at_its_deadline() {
        let mut guard = guard(std::future::pending::<Answer>);
        let begun = Instant::now();
        let late = guard.call(call_with_timeout(Some("300m"))).await.unwrap();
        assert_eq!(status_of(late.headers()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned()));
        assert_eq!(begun.elapsed().as_millis() / 10, 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_its_deadline_quiet_or_not() {
        for quiet in [true, false] {
            let mut guard =
                guard(move || async move { Ok(Response::new(Body::new(Endless { quiet, panics: false }))) });
            let mut body = guard.call(call_with_timeout(Some("300m"))).await.unwrap().into_body();
            let ended = loop {
                let frame = frame(&mut body).await.unwrap();
                if let Ok(last) = frame.into_trailers() {
                    break last;
                }
                tokio::time::advance(Duration::from_millis(100)).await;
            };
            assert_eq!(status_of(&ended).0, Code::DeadlineExceeded);
            assert!(frame(&mut body).await.is_none());
        }
    }

    #[tokio::test]
    async fn a_panic_is_our_fault_and_its_text_stays_with_us() {
        let mut in_call = guard(|| async { panic!("secret") });
        let answer = in_call.call(call_with_timeout(None)).await.unwrap();
        assert_eq!(status_of(answer.headers()), (Code::Internal, "INTERNAL".to_owned()));
        assert!(!format!("{:?}", answer.headers()).contains("secret"));

        let mut in_body = guard(|| async { Ok(Response::new(Body::new(Endless { quiet: false, panics: true }))) });
        let mut body = in_body.call(call_with_timeout(None)).await.unwrap().into_body();
        let last = frame(&mut body).await.unwrap().into_trailers().unwrap();
        assert_eq!(status_of(&last).0, Code::Internal);
    }

    #[test]
    fn the_frameworks_own_refusals_get_the_contracts_code() {
        let headers = |status: Status| status.into_http::<()>().headers().clone();
        let large =
            Status::out_of_range("Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes");
        let reworded_large = reworded(&headers(large)).unwrap();
        assert_eq!(reworded_large.code(), Code::ResourceExhausted);
        assert_eq!(reworded_large.get_details_error_info().unwrap().reason, "MESSAGE_TOO_LARGE");
        let garbage = Status::internal("failed to decode Protobuf message: invalid varint");
        assert_eq!(reworded(&headers(garbage)).unwrap().code(), Code::InvalidArgument);
        let ours = status::of(&Internal { cause: "failed".to_owned() });
        assert!(reworded(&headers(ours)).is_none());
        assert!(reworded(&headers(Status::out_of_range("revision"))).is_none());
    }
}
