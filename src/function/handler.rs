//! Functions by name.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::FutureExt as _;

use super::context::{BoxFuture, TaskContext};
use super::error::{BoxError, FunctionError, panicked};
use super::payload::{FromPayload, IntoPayload, Payload};
use crate::model::Failure;

type Call = dyn Fn(TaskContext, Payload) -> BoxFuture<'static, Result<Payload, FunctionError>> + Send + Sync;

/// A function that runs tasks. Cheap to clone.
#[derive(Clone)]
pub struct Function {
    call: Arc<Call>,
    /// Whether it blocks a thread, so that it cannot be stopped by force.
    pub is_blocking: bool,
}

/// A named function.
pub struct Handler {
    pub name: String,
    pub description: String,
    pub function: Function,
}

/// Functions by the name of their handlers.
pub type Handlers = BTreeMap<String, Handler>;

/// The functions that a program has registered, and its mistakes, which it learns of when it starts.
#[derive(Default)]
pub struct Registrations {
    pub handlers: Handlers,
    problems: Vec<String>,
}

impl Registrations {
    pub fn add(&mut self, name: &str, function: Function) {
        let handler = Handler { name: name.to_owned(), description: String::new(), function };
        if self.handlers.insert(name.to_owned(), handler).is_some() {
            self.problems.push(format!("handler {name:?} is registered twice"));
        }
    }

    pub fn describe(&mut self, name: &str, text: &str) {
        match self.handlers.get_mut(name) {
            Some(handler) => text.clone_into(&mut handler.description),
            None => self.problems.push(format!("description: there is no handler {name:?}")),
        }
    }

    /// The first mistake.
    pub fn problem(&self) -> Option<&str> {
        self.problems.first().map(String::as_str)
    }
}

impl Function {
    /// An asynchronous function.
    pub fn new<In, Out, E, F, Fut>(function: F) -> Self
    where
        In: FromPayload + Send + 'static,
        Out: IntoPayload,
        E: Into<BoxError>,
        F: Fn(TaskContext, In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Out, E>> + Send + 'static,
    {
        let call = move |context: TaskContext, payload: Payload| {
            let started = In::from_payload(payload).map(|argument| function(context, argument));
            let result: BoxFuture<'static, _> = match started {
                Ok(future) => Box::pin(async move { encoded(future.await) }),
                Err(error) => Box::pin(async move { Err(FunctionError::Argument(error)) }),
            };
            result
        };
        Self { call: Arc::new(call), is_blocking: false }
    }

    /// A function that blocks its thread. It runs on a thread for blocking code.
    pub fn blocking<In, Out, E, F>(function: F) -> Self
    where
        In: FromPayload + Send + 'static,
        Out: IntoPayload,
        E: Into<BoxError>,
        F: Fn(TaskContext, In) -> Result<Out, E> + Send + Sync + 'static,
    {
        let function = Arc::new(function);
        let call = move |context: TaskContext, payload: Payload| {
            let function = function.clone();
            let run = move || {
                let argument = In::from_payload(payload).map_err(FunctionError::Argument)?;
                encoded(context.clone().sync_scope(|| function(context, argument)))
            };
            let result: BoxFuture<'static, _> = Box::pin(async move {
                match tokio::task::spawn_blocking(run).await {
                    Ok(result) => result,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => resume_unwind(panic),
                        // The runtime shuts down, and nothing reads the result any more.
                        Err(error) => Err(FunctionError::Returned(error.into())),
                    },
                }
            });
            result
        };
        Self { call: Arc::new(call), is_blocking: true }
    }
}

fn encoded<Out: IntoPayload, E: Into<BoxError>>(result: Result<Out, E>) -> Result<Payload, FunctionError> {
    let value = result.map_err(|error| FunctionError::Returned(error.into()))?;
    value.into_payload().map_err(FunctionError::Result)
}

/// Runs a function. A panic is a failure.
pub async fn call(function: &Function, context: TaskContext, payload: Payload) -> Result<Payload, Failure> {
    let parent = context.trace_context();
    let run = async { (function.call)(context.clone(), payload).await };
    let run = context.clone().scope(AssertUnwindSafe(run).catch_unwind());
    let result = if parent.is_empty() { run.await } else { run.with_context(remote_parent(parent)).await };
    match result {
        Ok(result) => result.map_err(FunctionError::into_failure),
        Err(panic) => Err(panicked(&*panic)),
    }
}

/// The context in which spans are children of the attempt.
fn remote_parent(headers: Vec<(&'static str, String)>) -> opentelemetry::Context {
    let headers: std::collections::HashMap<String, String> =
        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    opentelemetry_sdk::propagation::TraceContextPropagator::new().extract(&headers)
}
