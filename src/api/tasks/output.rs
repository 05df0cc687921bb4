//! ReadOutput: what an attempt wrote, kept or live.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use crate::api::convert::{self, InvalidFields, task};
use crate::model::{Captured, OutputStream, TaskId};
use crate::proto::v1;
use crate::scheduler::{Draining, Handle, OutputBuffer, OutputSource};

use super::{Body, refused};

/// Bytes of one message.
const PIECE_BYTES: usize = 64 * 1024;

/// The pieces of one stream of one attempt, from an offset on.
pub async fn read(handle: Handle, request: v1::ReadOutputRequest) -> Result<Body<v1::ReadOutputResponse>, Status> {
    let mut bad = InvalidFields::default();
    let offset = u64::try_from(request.offset).unwrap_or_else(|_| {
        bad.add("offset", format!("is {}, it must not be negative", request.offset));
        0
    });
    let attempt = u32::try_from(request.attempt).unwrap_or_else(|_| {
        bad.add("attempt", format!("is {}, it must not be negative", request.attempt));
        0
    });
    let stream = match v1::OutputStream::try_from(request.stream) {
        Ok(v1::OutputStream::Stderr) => OutputStream::Stderr,
        Ok(_) => OutputStream::Stdout,
        Err(_) => {
            bad.add("stream", format!("is {}, which is not a stream; those are 0 to 2", request.stream));
            OutputStream::Stdout
        }
    };
    bad.check().map_err(refused)?;
    let id = convert::task_id(&request.task_id).map_err(refused)?;
    handle.get(&id).await.map_err(refused)?;
    Ok(Box::pin(pieces(Reader { handle, id, stream, offset, attempt, follow: request.follow })))
}

struct Reader {
    handle: Handle,
    id: TaskId,
    stream: OutputStream,
    offset: u64,
    attempt: u32,
    follow: bool,
}

fn pieces(mut reader: Reader) -> impl futures_util::Stream<Item = Result<v1::ReadOutputResponse, Status>> {
    async_stream::try_stream! {
        loop {
            match reader.handle.output(&reader.id, reader.attempt).await.map_err(refused)? {
                OutputSource::Live { attempt, buffer } => {
                    let mut more = true;
                    while more {
                        let seen = buffer.total();
                        for piece in reader.live(&buffer, attempt) {
                            yield piece;
                        }
                        more = reader.follow && reader.changed(&buffer, seen).await?;
                    }
                    for piece in reader.live(&buffer, attempt) {
                        yield piece;
                    }
                    break;
                }
                OutputSource::Kept { attempt, output } => {
                    let kept = match reader.stream {
                        OutputStream::Stdout => output.stdout,
                        OutputStream::Stderr => output.stderr,
                    };
                    for piece in reader.kept(&kept, attempt) {
                        yield piece;
                    }
                    break;
                }
                OutputSource::Empty if reader.follow && reader.may_still_run().await? => reader.wait_for_change().await?,
                OutputSource::Empty => break,
            }
        }
    }
}

impl Reader {
    fn live(&mut self, buffer: &Arc<OutputBuffer>, attempt: u32) -> Vec<v1::ReadOutputResponse> {
        let chunk = buffer.read(self.stream, self.offset);
        self.cut(Bytes::from(chunk.data), chunk.offset, attempt)
    }

    fn kept(&mut self, kept: &Captured, attempt: u32) -> Vec<v1::ReadOutputResponse> {
        let mut pieces = Vec::new();
        let tail_at = kept.total - kept.tail.len() as u64;
        for (bytes, at) in [(&kept.head, 0), (&kept.tail, tail_at)] {
            let end = at + bytes.len() as u64;
            if self.offset < end {
                let from = self.offset.max(at);
                let skip = usize::try_from(from - at).unwrap_or(bytes.len());
                pieces.extend(self.cut(bytes.slice(skip..), from, attempt));
            }
        }
        pieces
    }

    /// Messages of a bounded size; the first tells how many bytes before it were not kept.
    fn cut(&mut self, mut data: Bytes, mut at: u64, attempt: u32) -> Vec<v1::ReadOutputResponse> {
        let mut pieces = Vec::new();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE_BYTES));
            let skipped = task::count(at.saturating_sub(self.offset));
            self.offset = at + piece.len() as u64;
            let attempt = task::small(attempt);
            pieces.push(v1::ReadOutputResponse { offset: task::count(at), skipped, attempt, data: piece });
            at = self.offset;
        }
        pieces
    }

    async fn changed(&self, buffer: &OutputBuffer, seen: u64) -> Result<bool, Status> {
        let draining = self.handle.draining();
        tokio::select! {
            changed = buffer.changed(seen) => Ok(changed),
            () = draining.cancelled() => Err(refused(Draining)),
        }
    }

    async fn may_still_run(&self) -> Result<bool, Status> {
        let state = self.handle.get(&self.id).await.map_err(refused)?.task.status.state;
        Ok(!state.is_terminal())
    }

    /// Nothing runs yet: waits for the task's next event.
    async fn wait_for_change(&self) -> Result<(), Status> {
        let only = crate::model::TaskFilter { ids: vec![self.id.clone()], ..crate::model::TaskFilter::default() };
        let mut watch = self.handle.watch(only, None).map_err(refused)?;
        if !self.may_still_run().await? {
            return Ok(());
        }
        while watch.next().await.map_err(refused)?.is_empty() {}
        Ok(())
    }
}
