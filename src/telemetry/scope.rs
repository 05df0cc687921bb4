//! The current scope of a thread: the trace context and, if the thread runs an attempt, the attempt.
//!
//! Log lines and records take their trace and task ids from the scope, submissions their parent span. Entering a scope costs
//! two pointer moves, so every attempt runs in one. The context of the SDK, which costs more, is made for functions of users
//! only (`function`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use crate::model::{TaskId, TraceContext};

/// A call or an attempt.
pub trait Scope: Send + Sync {
    fn active_context(&self) -> Option<&ActiveContext>;

    fn attempt(&self) -> Option<AttemptName<'_>> {
        None
    }
}

/// Identifies an attempt in log lines.
#[derive(Clone, Copy, Debug)]
pub struct AttemptName<'a> {
    pub task: &'a TaskId,
    /// 1 for the first attempt.
    pub number: u32,
    pub pool: &'a str,
    /// Such as `default/PoolWorker-0`.
    pub worker: &'a str,
}

#[derive(Clone, Debug)]
pub struct ActiveContext {
    pub context: Arc<TraceContext>,
    is_remote: bool,
}

impl ActiveContext {
    /// For a span of another process, or for a context with baggage only.
    pub fn new(context: Arc<TraceContext>) -> Self {
        Self { context, is_remote: true }
    }

    /// For a span of this process.
    pub(super) fn local(context: Arc<TraceContext>) -> Self {
        Self { context, is_remote: false }
    }

    /// `None` for a context with baggage only.
    pub(super) fn span_context(&self) -> Option<SpanContext> {
        span_context(&self.context, self.is_remote)
    }

    pub(super) fn as_parent(&self) -> opentelemetry::Context {
        match self.span_context() {
            Some(span) => opentelemetry::Context::new().with_remote_span_context(span),
            None => opentelemetry::Context::new(),
        }
    }
}

/// `None` for a context with baggage only.
pub(super) fn span_context(context: &TraceContext, is_remote: bool) -> Option<SpanContext> {
    context.has_span().then(|| {
        let state = context.state.parse::<TraceState>().unwrap_or_default();
        let (trace, span) = (TraceId::from(context.trace_id), SpanId::from(context.span_id));
        SpanContext::new(trace, span, TraceFlags::new(context.w3c_flags()), is_remote, state)
    })
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Scope>>> = const { RefCell::new(None) };
}

/// The innermost scope of this thread.
pub fn current() -> Option<Arc<dyn Scope>> {
    CURRENT.with_borrow(Clone::clone)
}

pub fn current_context() -> Option<ActiveContext> {
    CURRENT.with_borrow(|scope| scope.as_ref()?.active_context().cloned())
}

pub fn enter(scope: Arc<dyn Scope>) -> Entered {
    Entered { outer: CURRENT.replace(Some(scope)) }
}

pub struct Entered {
    outer: Option<Arc<dyn Scope>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

pub async fn within<F: Future>(scope: Arc<dyn Scope>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(move |context| {
        let _entered = enter(scope.clone());
        future.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Caller(ActiveContext);

    impl Scope for Caller {
        fn active_context(&self) -> Option<&ActiveContext> {
            Some(&self.0)
        }
    }

    fn caller(span_id: u64) -> Arc<dyn Scope> {
        Arc::new(Caller(ActiveContext::new(Arc::new(TraceContext {
            trace_id: 1,
            span_id,
            flags: 1,
            ..TraceContext::default()
        }))))
    }

    fn seen() -> Option<u64> {
        current_context().map(|active| active.context.span_id)
    }

    #[tokio::test]
    async fn a_future_runs_in_its_scope_and_other_code_does_not() {
        let inner = within(caller(2), async {
            let before = seen();
            tokio::task::yield_now().await;
            (before, seen())
        });
        let _outer = enter(caller(1));
        assert_eq!(inner.await, (Some(2), Some(2)));
        assert_eq!(seen(), Some(1));
    }

    #[test]
    fn a_scope_ends_with_its_guard() {
        drop(enter(caller(1)));
        assert_eq!(seen(), None);
    }
}
