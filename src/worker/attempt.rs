//! One attempt of a remote worker, and the task of the runtime that runs it.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::artifacts;
use super::outbox::Token;
use super::parents;
use super::state::{Accepted, Shared};
use crate::client::Client;
use crate::function::{
    self, Attempt, BoxError, BoxFuture, Function, NewArtifact, ParentResults, Payload, StopReason, TaskContext,
};
use crate::model::OutputStream;
use crate::proto::v1::AttemptAssigned;

/// An attempt, for its function.
pub struct RemoteAttempt {
    client: Client,
    shared: Arc<Shared>,
    token: Token,
    /// Without its payload.
    assigned: AttemptAssigned,
    cancellation: CancellationToken,
    deadline: Option<Instant>,
}

impl Attempt for RemoteAttempt {
    fn task_id(&self) -> &str {
        &self.assigned.task_id
    }

    fn namespace(&self) -> &str {
        &self.assigned.namespace
    }

    fn handler(&self) -> &str {
        &self.assigned.handler
    }

    fn number(&self) -> u32 {
        self.assigned.attempt.unsigned_abs()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.assigned.labels.get(key).map(String::as_str)
    }

    fn trace_context(&self) -> Option<(String, String)> {
        let AttemptAssigned { traceparent, tracestate, .. } = &self.assigned;
        (!traceparent.is_empty()).then(|| (traceparent.clone(), tracestate.clone()))
    }

    fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.shared.stop_reason(&self.token)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn progress(&self, fraction: f64, note: &str) {
        self.shared.progress(&self.token, fraction, note);
    }

    fn write(&self, stream: OutputStream, data: &[u8]) {
        self.shared.output(&self.token, stream, data);
    }

    fn suspend(&self) {
        self.shared.suspend(&self.token);
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        let resumed = self.shared.resume(&self.token);
        Box::pin(async move {
            if let Some(resumed) = resumed {
                tokio::select! {
                    () = resumed.cancelled() => {}
                    // It has to stop, also without a slot.
                    () = self.cancellation.cancelled() => {}
                }
            }
        })
    }

    fn parents(&self) -> ParentResults {
        let (client, cancellation) = (self.client.clone(), self.cancellation.clone());
        let (task, token) = (self.assigned.task_id.clone(), self.token.to_string());
        ParentResults::new(parents::read(client, task, token, cancellation))
    }

    fn artifact(&self, artifact: NewArtifact) -> BoxFuture<'_, Result<(), BoxError>> {
        let (client, cancellation) = (self.client.clone(), self.cancellation.clone());
        let (task, token) = (self.assigned.task_id.clone(), self.token.to_string());
        Box::pin(async move {
            let uploaded = artifacts::upload(client, task, token, artifact, cancellation).await?;
            self.shared.add_artifact(&self.token, uploaded);
            Ok(())
        })
    }
}

/// Reports the end of an attempt whose function is dropped before it returns.
struct Running {
    shared: Arc<Shared>,
    token: Token,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.aborted(&self.token);
    }
}

/// Runs an attempt to its end.
pub async fn run(
    client: Client,
    shared: Arc<Shared>,
    accepted: Accepted,
    assigned: AttemptAssigned,
    function: Function,
    payload: Payload,
    deadline: Option<Instant>,
) {
    let Accepted { token, cancellation } = accepted;
    let running = Running { shared: shared.clone(), token: token.clone() };
    let attempt = RemoteAttempt { client, shared, token, assigned, cancellation, deadline };
    let result = function::call(&function, TaskContext::new(Arc::new(attempt)), payload).await;
    if let Err(failure) = &result
        && failure.reason == crate::model::FailureReason::Panic
    {
        tracing::error!(error = failure.message, "a function panicked");
    }
    running.shared.finish(&running.token, result);
}
