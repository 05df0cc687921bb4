//! The trace of one call: the caller's trace context, and a span of the server.

use std::sync::Arc;

use tonic::codegen::http::Request;

use crate::api::auth::ConnectionInfo;
use crate::telemetry::scope::{self, ActiveContext, Scope};
use crate::telemetry::trace::{self, Span};

use super::trace_context;

/// Traced paths. Health checks and reflection are left out, because they would hide the other calls.
const TRACED: &str = "/lineshaft.";
/// The gRPC code CANCELLED, for a call that the caller abandons.
const CANCELLED: i32 = 1;

/// The span of a call; or the caller's trace, if traces are not exported.
struct CallScope {
    span: Option<Span>,
    caller: Option<ActiveContext>,
}

impl Scope for CallScope {
    fn active_context(&self) -> Option<&ActiveContext> {
        self.span.as_ref().map(Span::active_context).or(self.caller.as_ref())
    }
}

pub struct TracedCall {
    scope: Arc<CallScope>,
    pub status: Option<i32>,
}

impl TracedCall {
    /// `None` if the call is not part of a trace.
    pub fn start<B>(request: &Request<B>) -> Option<Self> {
        let path = request.uri().path();
        if !path.starts_with(TRACED) {
            return None;
        }
        let caller = trace_context::extract(request.headers()).map(|context| ActiveContext::new(Arc::new(context)));
        let span = trace::tracer().map(|tracer| {
            let peer = ConnectionInfo::of(request.extensions()).peer;
            tracer.call(&path[1..], caller.as_ref(), peer)
        });
        let is_traced = span.is_some() || caller.is_some();
        is_traced.then(|| Self { scope: Arc::new(CallScope { span, caller }), status: None })
    }

    /// Makes the call the current scope of the thread.
    pub fn enter(&self) -> scope::Entered {
        scope::enter(self.scope.clone())
    }
}

impl Drop for TracedCall {
    fn drop(&mut self) {
        if let Some(span) = &self.scope.span {
            span.end_call(self.status.unwrap_or(CANCELLED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{TRACEPARENT, request};
    use super::*;

    fn is_traced(path: &'static str, headers: &[(&'static str, &'static str)]) -> bool {
        let mut request = request(headers);
        *request.uri_mut() = path.parse().unwrap();
        TracedCall::start(&request).is_some()
    }

    #[test]
    fn calls_of_standard_services_and_calls_without_a_context_are_not_traced() {
        assert!(is_traced("/lineshaft.v1.TaskService/GetTask", &[("traceparent", TRACEPARENT)]));
        assert!(!is_traced("/grpc.health.v1.Health/Check", &[("traceparent", TRACEPARENT)]));
        assert!(!is_traced("/lineshaft.v1.TaskService/GetTask", &[]));
        assert!(!is_traced("/lineshaft.v1.TaskService/GetTask", &[("traceparent", "x")]));
    }
}
