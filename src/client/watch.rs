//! Watching tasks across broken connections and restarts of the server.

use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::backoff::{LONGEST_PAUSE, pause_after};
use super::channel::Client;
use super::error::{CallError, may_help};
use super::repeat::repeat;
use crate::proto::v1::{self, watch_tasks_response::Kind};

/// Reason of the error with which a watch ends when the server drains.
const DRAINING: &str = "DRAINING";

/// The state changes of tasks, in their order and each once; see [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    /// Its token is that of the last message.
    request: v1::WatchTasksRequest,
    responses: Option<Streaming<v1::WatchTasksResponse>>,
    /// Pauses since the last message.
    pauses: u32,
}

impl Client {
    /// Watches the tasks that match a filter, from now on.
    ///
    /// # Errors
    /// [`CallError::Status`] if the server refuses the filter or cannot be reached.
    pub async fn watch(&self, filter: v1::TaskFilter) -> Result<Watch, CallError> {
        // With a token from the first moment on, a connection that breaks before the first event loses nothing.
        let request = v1::ListTasksRequest { filter: Some(filter.clone()), page_size: 1, ..Default::default() };
        let token = self.page(request).await?.resume_token;
        Ok(self.watch_after(filter, token))
    }

    /// Watches the tasks that match a filter, from the message with this `resume_token` on: that of an event, of a submission
    /// or of a list.
    pub fn watch_after(&self, filter: v1::TaskFilter, resume_token: impl Into<String>) -> Watch {
        let (filter, resume_token) = (Some(filter), resume_token.into());
        let request = v1::WatchTasksRequest { filter, resume_token, ..v1::WatchTasksRequest::default() };
        Watch { client: self.clone(), request, responses: None, pauses: 0 }
    }

    /// Reads a page of a list.
    pub(super) async fn page(&self, request: v1::ListTasksRequest) -> Result<v1::ListTasksResponse, Status> {
        let page = repeat(None, || {
            let (mut client, request) = (self.tasks(), request.clone());
            async move { client.list_tasks(request).await }
        });
        Ok(page.await?.into_inner())
    }
}

impl Watch {
    /// The next event. Waits for it as long as necessary, also while the server cannot be reached. A wait that is dropped loses
    /// no event.
    ///
    /// # Errors
    /// [`CallError::Status`] if the watch cannot go on. Its reason is `REVISION_COMPACTED` if the store no longer has the next
    /// event.
    pub async fn next(&mut self) -> Result<v1::TaskEvent, CallError> {
        loop {
            let status = match self.receive().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => Status::unavailable("the server ended the watch"),
                Err(status) => status,
            };
            self.responses = None;
            let details = status.get_error_details();
            let drained = details.error_info().filter(|info| info.reason == DRAINING);
            if let Some(token) = drained.and_then(|info| info.metadata.get("resume_token")) {
                self.request.resume_token.clone_from(token);
            }
            if !may_help(&status) {
                return Err(status.into());
            }
            let asked = details.retry_info().and_then(|retry| retry.retry_delay).unwrap_or_default();
            let pause = pause_after(self.pauses).max(asked.min(LONGEST_PAUSE));
            self.pauses += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// The token with which [`Client::watch_after`] continues after the last event that was returned.
    pub fn resume_token(&self) -> &str {
        &self.request.resume_token
    }

    /// The next event of the open stream, or of a new one; `None` at its end.
    async fn receive(&mut self) -> Result<Option<v1::TaskEvent>, Status> {
        let responses = match &mut self.responses {
            Some(responses) => responses,
            closed => {
                let opened = self.client.tasks().watch_tasks(self.request.clone()).await?;
                closed.insert(opened.into_inner())
            }
        };
        while let Some(response) = responses.message().await? {
            self.pauses = 0;
            match response.kind {
                Some(Kind::Event(event)) => {
                    self.request.resume_token.clone_from(&event.resume_token);
                    return Ok(Some(*event));
                }
                Some(Kind::Progress(progress)) => self.request.resume_token = progress.resume_token,
                // Only after a request for a snapshot.
                Some(Kind::SnapshotEntry(_) | Kind::SnapshotComplete(_)) | None => {}
            }
        }
        Ok(None)
    }
}
