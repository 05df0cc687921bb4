//! Submitting a task, and waiting for its result.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tonic::Request;

use super::channel::Client;
use super::error::CallError;
use super::repeat::repeat;
use crate::function::{IntoPayload, Payload, TaskContext};
use crate::proto::v1::{self, TaskState, payload::Kind};

/// A submitted task.
#[derive(Clone, Debug)]
pub struct Task {
    client: Client,
    id: String,
}

impl Client {
    /// Submits a task, and returns when it is stored. The payload is JSON, or a [`Payload`]. The submission is safe to repeat,
    /// so it is repeated for 30 seconds while the server cannot be reached or is full.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn submit(&self, handler: &str, payload: impl IntoPayload) -> Result<Task, CallError> {
        let payload = Some(to_message(payload.into_payload()?));
        self.submit_task(v1::SubmitTaskRequest { handler: handler.to_owned(), payload, ..Default::default() }).await
    }

    /// Submits a task with options; see [`submit`](Self::submit).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn submit_task(&self, task: v1::SubmitTaskRequest) -> Result<Task, CallError> {
        let task = prepare(task);
        let submitted = repeat(None, || {
            let (mut client, request) = (self.tasks(), traced(task.clone()));
            async move { client.submit_task(request).await }
        });
        Ok(Task { client: self.clone(), id: submitted.await?.into_inner().task_id })
    }

    /// Submits a task and waits for its result.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<T: DeserializeOwned>(&self, handler: &str, payload: impl IntoPayload) -> Result<T, CallError> {
        self.submit(handler, payload).await?.result().await
    }

    /// A task that was submitted elsewhere.
    pub fn task(&self, id: impl Into<String>) -> Task {
        Task { client: self.clone(), id: id.into() }
    }
}

impl Task {
    /// Task ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the task has finished, also after the connection broke. A function that waits for a task gives its slot back
    /// meanwhile, so that the task can run in it.
    ///
    /// # Errors
    /// [`CallError::Status`] if the server refuses the call.
    pub async fn wait(&self) -> Result<v1::Task, CallError> {
        match TaskContext::current() {
            Some(context) => context.wait(self.finished()).await,
            None => self.finished().await,
        }
    }

    async fn finished(&self) -> Result<v1::Task, CallError> {
        let request = v1::WaitTaskRequest { task_id: self.id.clone(), timeout: None };
        loop {
            let far = Instant::now() + Duration::from_hours(24);
            let response = repeat(Some(far), || {
                let (mut client, request) = (self.client.tasks(), request.clone());
                async move { client.wait_task(request).await }
            });
            let response = response.await?.into_inner();
            if let Some(task) = response.task.filter(|_| response.finished) {
                return Ok(task);
            }
        }
    }

    /// Waits for the result and decodes it from JSON.
    ///
    /// # Errors
    /// [`CallError`], also if the task has failed or was cancelled.
    pub async fn result<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        Ok(self.payload().await?.json()?)
    }

    /// Waits for the result, as the bytes that the handler has returned.
    ///
    /// # Errors
    /// [`CallError`], also if the task has failed or was cancelled.
    pub async fn payload(&self) -> Result<Payload, CallError> {
        decoded(self.wait().await?)
    }

    /// Cancels the task. Its handler is asked to stop.
    ///
    /// # Errors
    /// [`CallError::Status`] if the server refuses the call.
    pub async fn cancel(&self) -> Result<(), CallError> {
        let request = v1::CancelTaskRequest { task_id: self.id.clone(), ..Default::default() };
        self.client.tasks().cancel_task(request).await?;
        Ok(())
    }
}

/// A submission that is safe to repeat.
pub fn prepare(mut task: v1::SubmitTaskRequest) -> v1::SubmitTaskRequest {
    if task.request_id.is_empty() {
        task.request_id = uuid::Uuid::now_v7().to_string();
    }
    task
}

/// The request. A task that a function submits belongs to the trace of its own task.
pub fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let context = TaskContext::current();
    for (name, value) in context.iter().flat_map(TaskContext::trace_context) {
        if let Ok(value) = value.parse() {
            request.metadata_mut().insert(name, value);
        }
    }
    request
}

/// The result of a finished task.
pub fn decoded(task: v1::Task) -> Result<Payload, CallError> {
    match task.state() {
        TaskState::Completed => Ok(from_message(task.result)),
        TaskState::Cancelled => Err(CallError::Cancelled(task.task_id)),
        _ => {
            let failure = Box::new(task.failure.unwrap_or_default());
            Err(CallError::Failed { task_id: task.task_id, failure })
        }
    }
}

/// A payload in the contract.
pub fn to_message(payload: Payload) -> v1::Payload {
    v1::Payload { kind: Some(Kind::Data(payload.data)), content_type: payload.content_type.to_string() }
}

/// A payload of the contract.
pub fn from_message(message: Option<v1::Payload>) -> Payload {
    let Some(message) = message else { return Payload::default() };
    let data = match message.kind {
        Some(Kind::Data(data)) => data,
        // A server sends values of JSON in JSON only.
        Some(Kind::Json(_)) | None => bytes::Bytes::new(),
    };
    Payload { data, content_type: message.content_type.into() }
}
