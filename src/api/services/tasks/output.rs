//! ReadOutput: what an attempt wrote, kept or live.

use bytes::Bytes;
use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::{InvalidFields, task};
use crate::model::{Captured, OutputStream, Role, TaskFilter, TaskId};
use crate::proto::v1;
use crate::scheduler::{Draining, Handle, OutputBuffer, OutputSource, Refusal, Watch};

use super::{Body, refused};

/// Bytes of one message.
const PIECE_BYTES: usize = 64 * 1024;

/// The pieces of one stream of one attempt, from an offset on.
pub async fn read(
    handle: Handle,
    request: v1::ReadOutputRequest,
    caller: &Caller,
) -> Result<Body<v1::ReadOutputResponse>, Status> {
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
    let id = caller.find(&handle, Role::Viewer, &request.task_id).await?.task.spec.id.clone();
    Ok(Box::pin(pieces(Reader { handle, id, stream, offset, attempt, follow: request.follow, read: 0 })))
}

struct Reader {
    handle: Handle,
    id: TaskId,
    stream: OutputStream,
    offset: u64,
    /// The attempt asked for; 0: the current or last.
    attempt: u32,
    follow: bool,
    /// The last attempt that was read to its end; 0: none yet.
    read: u32,
}

fn pieces(mut reader: Reader) -> impl futures_util::Stream<Item = Result<v1::ReadOutputResponse, Status>> {
    async_stream::try_stream! {
        loop {
            // Older than the look at the output, so that no change after it is missed.
            let changes = reader.changes()?;
            match reader.handle.output(&reader.id, reader.attempt).await.map_err(refused)? {
                OutputSource::Live { attempt, buffer } if attempt > reader.read => {
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
                    reader.ended(attempt);
                }
                OutputSource::Kept { attempt, output } if attempt > reader.read => {
                    let kept = match reader.stream {
                        OutputStream::Stdout => output.stdout,
                        OutputStream::Stderr => output.stderr,
                    };
                    for piece in reader.kept(&kept, attempt) {
                        yield piece;
                    }
                    reader.ended(attempt);
                }
                _ => {}
            }
            if !reader.follow || !reader.more_may_come().await? {
                break;
            }
            Reader::change(changes).await?;
        }
    }
}

impl Reader {
    fn live(&mut self, buffer: &OutputBuffer, attempt: u32) -> Vec<v1::ReadOutputResponse> {
        let mut pieces = Vec::new();
        // Where bytes were not kept, the first read ends with the head, the second begins with the tail.
        for _ in 0..2 {
            let chunk = buffer.read(self.stream, self.offset);
            pieces.extend(self.cut(Bytes::from(chunk.data), chunk.offset, attempt));
        }
        pieces
    }

    /// The next attempt is read from its beginning.
    fn ended(&mut self, attempt: u32) {
        self.read = attempt;
        self.offset = 0;
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

    /// Whether an attempt that was asked for may still write: the task has not ended, and the attempt
    /// is still to come or any will do.
    async fn more_may_come(&self) -> Result<bool, Status> {
        let status = self.handle.get(&self.id).await.map_err(refused)?.task.status;
        let wanted = self.attempt == 0 || (self.read == 0 && self.attempt >= status.attempt);
        Ok(wanted && !status.state.is_terminal())
    }

    fn changes(&self) -> Result<Watch, Status> {
        let only = TaskFilter { ids: vec![self.id.clone()], ..TaskFilter::default() };
        self.handle.watch(only, None).map_err(refused)
    }

    async fn change(mut changes: Watch) -> Result<(), Status> {
        loop {
            match changes.next().await {
                Ok(found) if found.is_empty() => {}
                Ok(_) => return Ok(()),
                // Output has an offset to go on at, and no revision.
                Err(Refusal::WatchDrained(_)) => return Err(refused(Draining)),
                Err(refusal) => return Err(refused(refusal)),
            }
        }
    }
}
