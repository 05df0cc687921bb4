//! Uploads the artifacts of an attempt.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, may_help, pause_after};
use crate::function::{ArtifactContent, BoxError, NewArtifact};
use crate::proto::v1::{self, UploadArtifactRequest};

/// In one message.
const PART_BYTES: usize = 1 << 20;
/// Messages that are read before they are sent.
const PARTS_AHEAD: usize = 2;

/// Begins anew when the connection breaks, until the attempt has to stop.
pub async fn upload(
    client: Client,
    task_id: String,
    token: String,
    artifact: NewArtifact,
    cancellation: CancellationToken,
) -> Result<v1::Artifact, BoxError> {
    let NewArtifact { name, content_type, content } = artifact;
    let first = UploadArtifactRequest { task_id, token, name, content_type, ..UploadArtifactRequest::default() };
    let mut workers = client.workers();
    let mut pauses = 0;
    loop {
        let (sender, requests) = mpsc::channel(PARTS_AHEAD);
        let uploaded = tokio::select! {
            uploaded = workers.upload_artifact(ReceiverStream::new(requests)) => uploaded,
            // The call is gone before the sender is: its end would make what was read a complete artifact.
            Err((error, _sender)) = send(sender, first.clone(), content.clone()) => return Err(error.into()),
            () = cancellation.cancelled() => return Err("the attempt has to stop".into()),
        };
        match uploaded {
            Ok(response) => return response.into_inner().artifact.ok_or_else(|| "the response has no artifact".into()),
            Err(status) if may_help(&status) => {
                tracing::warn!(error = status.message(), "an artifact cannot be stored; trying again");
                tokio::time::sleep(pause_after(pauses)).await;
                pauses += 1;
            }
            Err(status) => return Err(status.message().into()),
        }
    }
}

type Sender = mpsc::Sender<UploadArtifactRequest>;

/// Sends an artifact in parts, as long as they are received. Returns the sender with an error of the file.
async fn send(
    sender: Sender,
    first: UploadArtifactRequest,
    content: ArtifactContent,
) -> Result<(), (io::Error, Sender)> {
    let mut content = match content {
        ArtifactContent::Bytes(bytes) => Content::Bytes(bytes),
        ArtifactContent::File(path) => match File::open(path).await {
            Ok(file) => Content::File(file),
            Err(error) => return Err((error, sender)),
        },
    };
    let mut message = first;
    while sender.send(message).await.is_ok() {
        let data = match content.next().await {
            Ok(data) => data,
            Err(error) => return Err((error, sender)),
        };
        if data.is_empty() {
            break;
        }
        message = UploadArtifactRequest { data, ..UploadArtifactRequest::default() };
    }
    Ok(())
}

enum Content {
    Bytes(Bytes),
    File(File),
}

impl Content {
    /// The next part; empty at the end.
    async fn next(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Bytes(left) => Ok(left.split_to(left.len().min(PART_BYTES))),
            Self::File(file) => {
                let mut part = BytesMut::with_capacity(PART_BYTES);
                file.read_buf(&mut part).await?;
                Ok(part.freeze())
            }
        }
    }
}
