//! ReadOutput: streams the stored or live output of an attempt.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::api::auth::Caller;
use crate::api::convert::InvalidFields;
use crate::api::convert::numbers::{to_i32, to_i64};
use crate::api::status::into_status;
use crate::model::{Captured, OutputStream, Role, TaskFilter, TaskId, limits};
use crate::proto::v1;
use crate::scheduler::{Draining, Handle, OutputBuffer, OutputSource, Refusal, TaskParts, Watch};

/// Stored output of an attempt: head and tail of both streams.
const STORED_BYTES_MAX: u64 = 4 * limits::OUTPUT_KEPT_BYTES as u64;
/// Maximum number of output bytes in one message.
const CHUNK_BYTES: usize = 64 * 1024;

/// Streams one output stream of one attempt, starting at an offset.
pub async fn read(
    handle: Handle,
    request: v1::ReadOutputRequest,
    caller: &Caller,
) -> Result<BoxStream<v1::ReadOutputResponse>, Status> {
    let mut invalid = InvalidFields::default();
    let offset = u64::try_from(request.offset).unwrap_or_else(|_| {
        invalid.add("offset", format!("is {}, must not be negative", request.offset));
        0
    });
    let attempt = u32::try_from(request.attempt).unwrap_or_else(|_| {
        invalid.add("attempt", format!("is {}, must not be negative", request.attempt));
        0
    });
    let stream = match v1::OutputStream::try_from(request.stream) {
        Ok(v1::OutputStream::Stderr) => OutputStream::Stderr,
        Ok(_) => OutputStream::Stdout,
        Err(_) => {
            invalid.add("stream", format!("is {}, must be from 0 to 2", request.stream));
            OutputStream::Stdout
        }
    };
    invalid.check().map_err(into_status)?;
    let (found, _) = caller.find(&handle, Role::Viewer, &request.task_id, TaskParts::default()).await?;
    let id = found.task.spec.id.clone();
    let follow = request.follow;
    Ok(Box::pin(chunks(Reader {
        handle,
        caller: caller.share_name(),
        id,
        stream,
        offset,
        attempt,
        follow,
        last_read: 0,
    })))
}

struct Reader {
    handle: Handle,
    caller: Arc<str>,
    id: TaskId,
    stream: OutputStream,
    offset: u64,
    /// The requested attempt; 0: the current or last one.
    attempt: u32,
    follow: bool,
    /// The last attempt that was read to its end; 0: none.
    last_read: u32,
}

fn chunks(mut reader: Reader) -> impl Stream<Item = Result<v1::ReadOutputResponse, Status>> {
    async_stream::try_stream! {
        loop {
            // Started before the output is read, so that no later change is missed.
            let watch = reader.watch()?;
            let memory = reader.handle.reserve_stream_read(&reader.caller, STORED_BYTES_MAX).await;
            match reader.handle.output(&reader.id, reader.attempt).await.map_err(into_status)? {
                OutputSource::Live { attempt, buffer } if attempt > reader.last_read => {
                    // The output is in the memory of the attempt.
                    drop(memory);
                    let mut running = true;
                    while running {
                        let seen = buffer.total();
                        for chunk in reader.read_live(&buffer, attempt) {
                            yield chunk;
                        }
                        running = reader.follow && reader.wait_for_output(&buffer, seen).await?;
                    }
                    for chunk in reader.read_live(&buffer, attempt) {
                        yield chunk;
                    }
                    reader.finish_attempt(attempt);
                }
                OutputSource::Stored { attempt, output } if attempt > reader.last_read => {
                    let kept = match reader.stream {
                        OutputStream::Stdout => output.stdout,
                        OutputStream::Stderr => output.stderr,
                    };
                    for chunk in reader.read_kept(&kept, attempt) {
                        yield chunk;
                    }
                    drop(memory);
                    reader.finish_attempt(attempt);
                }
                _ => drop(memory),
            }
            if !reader.follow || !reader.expects_output().await? {
                break;
            }
            Reader::wait_for_event(watch).await?;
        }
        reader.check_attempt().await?;
    }
}

impl Reader {
    fn read_live(&mut self, buffer: &OutputBuffer, attempt: u32) -> Vec<v1::ReadOutputResponse> {
        let mut chunks = Vec::new();
        // If bytes in the middle were not kept, the first read returns the head and the second one the tail.
        for _ in 0..2 {
            let read = buffer.read(self.stream, self.offset);
            chunks.extend(self.split(Bytes::from(read.data), read.offset, attempt));
        }
        chunks
    }

    /// The next attempt is read from its beginning.
    fn finish_attempt(&mut self, attempt: u32) {
        self.last_read = attempt;
        self.offset = 0;
    }

    fn read_kept(&mut self, kept: &Captured, attempt: u32) -> Vec<v1::ReadOutputResponse> {
        let mut chunks = Vec::new();
        let tail_at = kept.total - kept.tail.len() as u64;
        for (bytes, at) in [(&kept.head, 0), (&kept.tail, tail_at)] {
            let end = at + bytes.len() as u64;
            if self.offset < end {
                let from = self.offset.max(at);
                let skip = usize::try_from(from - at).unwrap_or(bytes.len());
                chunks.extend(self.split(bytes.slice(skip..), from, attempt));
            }
        }
        chunks
    }

    /// Splits bytes at an offset into messages. The first message has the number of bytes before it that were not kept.
    fn split(&mut self, mut data: Bytes, mut offset: u64, attempt: u32) -> Vec<v1::ReadOutputResponse> {
        let mut chunks = Vec::new();
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_BYTES));
            let skipped = to_i64(offset.saturating_sub(self.offset));
            self.offset = offset + chunk.len() as u64;
            let (at, attempt) = (to_i64(offset), to_i32(attempt));
            chunks.push(v1::ReadOutputResponse { data: chunk, offset: at, skipped, attempt });
            offset = self.offset;
        }
        chunks
    }

    /// Waits for more output than `seen` bytes; returns false if the attempt has ended.
    async fn wait_for_output(&self, buffer: &OutputBuffer, seen: u64) -> Result<bool, Status> {
        let draining = self.handle.draining();
        tokio::select! {
            changed = buffer.changed(seen) => Ok(changed),
            () = draining.cancelled() => Err(into_status(Draining)),
        }
    }

    /// Whether a requested attempt can still write: the task is not finished, and either every attempt is requested or
    /// the requested one has not ended.
    async fn expects_output(&self) -> Result<bool, Status> {
        let status = self.handle.get(&self.id).await.map_err(into_status)?.task.status;
        let requested = self.attempt == 0 || (self.last_read == 0 && self.attempt >= status.attempt);
        Ok(requested && !status.state.is_terminal())
    }

    /// Refuses an attempt that the task has not had.
    async fn check_attempt(&self) -> Result<(), Status> {
        if self.attempt == 0 || self.last_read > 0 {
            return Ok(());
        }
        let latest = self.handle.get(&self.id).await.map_err(into_status)?.task.status.attempt;
        let mut invalid = InvalidFields::default();
        if self.attempt > latest {
            let text = if latest == 0 { "has not started".to_owned() } else { format!("is at attempt {latest}") };
            invalid.add("attempt", format!("is {}, but the task {text}; 0 is the latest", self.attempt));
        }
        invalid.check().map_err(into_status)
    }

    fn watch(&self) -> Result<Watch, Status> {
        let filter = TaskFilter { ids: vec![self.id.clone()], ..TaskFilter::default() };
        self.handle.watch(filter, None, self.caller.clone()).map_err(into_status)
    }

    async fn wait_for_event(mut watch: Watch) -> Result<(), Status> {
        loop {
            match watch.next().await {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(()),
                // A reader resumes at an offset, not after a revision.
                Err(Refusal::WatchDrained(_)) => return Err(into_status(Draining)),
                Err(refusal) => return Err(into_status(refusal)),
            }
        }
    }
}
