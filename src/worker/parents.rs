//! Reads the results of the parents of a task from the server.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::client::{Client, from_message, may_help, pause_after};
use crate::function::{BoxError, ParentResult};
use crate::proto::v1;

/// The parents of the task of an attempt. A stream that breaks is opened again until the attempt has to stop.
pub fn read(
    client: Client,
    task_id: String,
    token: String,
    cancellation: CancellationToken,
) -> BoxStream<'static, Result<ParentResult, BoxError>> {
    let request = v1::ReadParentResultsRequest { task_id, token, skip: 0 };
    let reader = Reader { client, request, cancellation, open: None, received: VecDeque::new(), pauses: 0 };
    let next = |mut reader: Reader| async move {
        let parent = reader.next().await.map_err(|status| BoxError::from(status.message())).transpose()?;
        Some((parent, reader))
    };
    stream::unfold(reader, next).boxed()
}

struct Reader {
    client: Client,
    /// What is left to read.
    request: v1::ReadParentResultsRequest,
    cancellation: CancellationToken,
    open: Option<Streaming<v1::ReadParentResultsResponse>>,
    received: VecDeque<v1::ParentResult>,
    /// Since the last message.
    pauses: u32,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<ParentResult>, Status> {
        let cancellation = self.cancellation.clone();
        loop {
            let next = tokio::select! {
                next = self.read() => next,
                () = cancellation.cancelled() => Err(Status::cancelled("the attempt has to stop")),
            };
            match next {
                Err(status) if may_help(&status) && !cancellation.is_cancelled() => {
                    tracing::warn!(error = status.message(), "the results of parents cannot be read; trying again");
                    self.open = None;
                    self.received.clear();
                    tokio::time::sleep(pause_after(self.pauses)).await;
                    self.pauses += 1;
                }
                next => return next,
            }
        }
    }

    /// The next parent, with all parts of its result.
    async fn read(&mut self) -> Result<Option<ParentResult>, Status> {
        let Some(v1::ParentResult { task_id, result, mut has_more, .. }) = self.part().await? else { return Ok(None) };
        let mut result = result.map(|result| from_message(Some(result)));
        if let Some(result) = result.as_mut().filter(|_| has_more) {
            let mut data = BytesMut::from(&*result.data);
            while has_more {
                let part =
                    self.part().await?.ok_or_else(|| Status::unavailable("the result of a parent is incomplete"))?;
                has_more = part.has_more;
                data.extend_from_slice(&from_message(part.result).data);
            }
            result.data = Bytes::from(data);
        }
        self.request.skip += 1;
        Ok(Some(ParentResult::new(task_id, result)))
    }

    async fn part(&mut self) -> Result<Option<v1::ParentResult>, Status> {
        while self.received.is_empty() {
            let stream = if let Some(stream) = &mut self.open {
                stream
            } else {
                let opened = self.client.workers().read_parent_results(self.request.clone()).await?;
                self.open.insert(opened.into_inner())
            };
            let Some(message) = stream.message().await? else { return Ok(None) };
            self.pauses = 0;
            self.received = message.results.into();
        }
        Ok(self.received.pop_front())
    }
}
