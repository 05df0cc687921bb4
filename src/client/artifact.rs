//! The files that tasks have left: lists and reads them.

use std::fmt;
use std::fmt::Write as _;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::backoff::pause_after;
use super::channel::Client;
use super::error::{CallError, may_help};
use super::repeat::{TIMEOUT, repeat};
use super::task::Task;
use crate::proto::v1;

impl Task {
    /// The files that the task has left, by name, with their sizes, content types and checksums. There are none unless the task has
    /// completed.
    ///
    /// # Errors
    /// [`CallError::Status`] if the server refuses the call.
    pub async fn artifacts(&self) -> Result<Vec<v1::Artifact>, CallError> {
        let request = v1::ListArtifactsRequest { task_id: self.id().to_owned(), link_lifetime: None };
        let listed = repeat(None, || {
            let (mut client, request) = (self.client().artifacts(), request.clone());
            async move { client.list_artifacts(request).await }
        });
        Ok(listed.await?.into_inner().artifacts)
    }

    /// Reads a file that the task has left, of any size, and writes it to `target`. After a broken connection it continues at the byte
    /// that was reached, unless the server cannot be reached for 30 seconds.
    ///
    /// # Errors
    /// - [`CallError::Checksum`] if what was written does not have the SHA-256 of the artifact
    /// - [`CallError::Status`] if the task has no such artifact, or the server cannot be reached
    /// - [`CallError::Write`] if `target` returns an error
    pub async fn read_artifact(
        &self,
        name: impl Into<String>,
        mut target: impl AsyncWrite + Unpin,
    ) -> Result<v1::Artifact, CallError> {
        let mut download = Download::new(self.client().clone(), self.id(), name);
        let (mut pauses, mut deadline) = (0, Instant::now() + TIMEOUT);
        loop {
            match download.next().await {
                Ok(Some(part)) => {
                    target.write_all(&part).await.map_err(CallError::Write)?;
                    (pauses, deadline) = (0, Instant::now() + TIMEOUT);
                }
                Ok(None) => {
                    target.flush().await.map_err(CallError::Write)?;
                    return Ok(download.into_artifact());
                }
                Err(CallError::Status(status)) if may_help(&status) && Instant::now() < deadline => {
                    tokio::time::sleep(pause_after(pauses)).await;
                    pauses += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The content of a file that the task has left.
    ///
    /// # Errors
    /// Those of [`read_artifact`](Self::read_artifact).
    pub async fn artifact(&self, name: impl Into<String>) -> Result<Vec<u8>, CallError> {
        let mut content = Vec::new();
        self.read_artifact(name, &mut content).await?;
        Ok(content)
    }
}

/// An artifact that is read in parts, over any number of connections.
pub struct Download {
    client: Client,
    /// Its offset is the number of bytes that were received.
    request: v1::ReadArtifactRequest,
    received: Context,
    /// From the first message.
    artifact: Option<v1::Artifact>,
    messages: Option<Streaming<v1::ReadArtifactResponse>>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Download {
    pub fn new(client: Client, task_id: impl Into<String>, name: impl Into<String>) -> Self {
        let request = v1::ReadArtifactRequest { task_id: task_id.into(), name: name.into(), offset: 0, length: 0 };
        Self { client, request, received: Context::new(&SHA256), artifact: None, messages: None }
    }

    /// Skips the next part, which an earlier download has received.
    pub fn skip(&mut self, part: &[u8]) {
        self.received.update(part);
        self.request.offset += i64::try_from(part.len()).unwrap_or(i64::MAX);
    }

    /// Number of bytes that were received or skipped.
    pub fn offset(&self) -> u64 {
        u64::try_from(self.request.offset).unwrap_or(0)
    }

    /// What is read; `None` before the first part.
    pub fn artifact(&self) -> Option<&v1::Artifact> {
        self.artifact.as_ref()
    }

    pub fn into_artifact(self) -> v1::Artifact {
        self.artifact.unwrap_or_default()
    }

    /// The next part, which can be empty; `None` at the end, if what was received has the SHA-256 of the artifact. After a
    /// [`CallError::Status`], the next call opens the stream again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        match self.receive().await {
            Ok(Some(message)) => {
                self.artifact = self.artifact.take().or(message.artifact);
                self.skip(&message.data);
                Ok(Some(message.data))
            }
            Ok(None) => self.verify().map(|()| None),
            Err(status) => {
                self.messages = None;
                Err(status.into())
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<v1::ReadArtifactResponse>, Status> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            closed => {
                let opened = self.client.artifacts().read_artifact(self.request.clone()).await?;
                closed.insert(opened.into_inner())
            }
        };
        messages.message().await
    }

    fn verify(&self) -> Result<(), CallError> {
        let mut received = String::new();
        for byte in self.received.clone().finish().as_ref() {
            // Writing to a text cannot fail.
            let _ = write!(received, "{byte:02x}");
        }
        let expected = self.artifact.as_ref().map(|artifact| artifact.sha256.clone()).unwrap_or_default();
        if received == expected { Ok(()) } else { Err(CallError::Checksum { received, expected }) }
    }
}
