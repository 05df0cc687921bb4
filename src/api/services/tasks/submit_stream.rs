//! SubmitTasks: submits the tasks of a stream in chunks, and responds to each task when it is durable.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::stream::{Fuse, FuturesUnordered, StreamExt};
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use crate::api::auth::{Caller, Reservation, audit};
use crate::api::convert::shared_options::SharedOptions;
use crate::api::convert::{InvalidFields, MessagePath};
use crate::api::status::{self, into_status};
use crate::model::{Coded, MemoryPart, StoreId, TaskSpec};
use crate::proto::v1::{self, submit_tasks_response::Outcome};
use crate::scheduler::{Draining, Handle, Refusal, Submitted};

use super::send_span::SendSpan;
use super::submit::{Authorized, Converter, SubmittedTask, authorize, to_its_end};

/// Maximum number of tasks of one stream without a response; at the limit no further requests are read.
const IN_FLIGHT_MAX: usize = 1_024;
/// Maximum bytes of payloads of these tasks.
const BYTES_IN_FLIGHT_MAX: usize = 8 << 20;
/// Maximum number of tasks sent to the scheduler at once.
const CHUNK_MAX: usize = 256;
/// No more tasks are added to a chunk with these bytes of payloads.
const CHUNK_BYTES_MAX: usize = 1 << 20;

type Responses = Vec<v1::SubmitTasksResponse>;

/// Streams the responses in the order in which the tasks become durable.
pub fn responses(
    handle: Handle,
    requests: Streaming<v1::SubmitTasksRequest>,
    caller: Caller,
) -> BoxStream<v1::SubmitTasksResponse> {
    Box::pin(async_stream::stream! {
        let draining = handle.draining();
        tokio::pin! {
            let drained = draining.cancelled();
        }
        let mut requests = requests.fuse();
        let mut shared = None;
        let mut chunks = FuturesUnordered::new();
        let (mut in_flight, mut bytes_in_flight) = (0, 0);
        let mut more = true;
        let mut end = None;
        let mut accepted = 0_u64;
        while more || !chunks.is_empty() {
            tokio::select! {
                biased;
                () = &mut drained, if more => {
                    more = false;
                    end = Some(into_status(Draining));
                }
                Some((bytes, responses)) = chunks.next() => {
                    let responses: Responses = responses;
                    in_flight -= responses.len();
                    bytes_in_flight -= bytes;
                    for response in responses {
                        accepted += u64::from(matches!(response.outcome, Some(Outcome::Accepted(_))));
                        yield Ok(response);
                    }
                }
                mut chunk = arrived(&mut requests, &handle, &caller, &mut shared),
                    if more && may_read(&handle, in_flight, bytes_in_flight) =>
                {
                    // Accepted tasks stay accepted and still get their responses.
                    end = chunk.error.take();
                    more = end.is_none() && !chunk.is_empty();
                    if !chunk.is_empty() {
                        let bytes = chunk.payload_bytes;
                        in_flight += chunk.len();
                        bytes_in_flight += bytes;
                        let responses = submit(&handle, chunk, &caller).await;
                        chunks.push(async move { (bytes, responses.await) });
                    }
                }
            }
        }
        audit::submission(&caller, "SubmitTasks", |count| format!("{count} tasks"), &Ok(accepted));
        if let Some(status) = end {
            yield Err(status);
        }
    })
}

/// Whether the stream may read more requests before it has responded to those it has read. Without memory to spare it
/// reads one chunk at a time, so that it need not be refused.
fn may_read(handle: &Handle, in_flight: usize, bytes_in_flight: usize) -> bool {
    let is_scarce = || handle.memory().used(MemoryPart::Requests) > handle.memory().limit(MemoryPart::Requests) / 2;
    let has_room = in_flight <= IN_FLIGHT_MAX - CHUNK_MAX && bytes_in_flight < BYTES_IN_FLIGHT_MAX;
    in_flight == 0 || has_room && !is_scarce()
}

/// Requests that have arrived together.
#[derive(Default)]
struct Chunk {
    /// With the sequence numbers of their requests.
    tasks: Vec<(u64, TaskSpec)>,
    rejected: Responses,
    payload_bytes: usize,
    /// A malformed message follows, or the caller is gone.
    error: Option<Status>,
}

impl Chunk {
    fn len(&self) -> usize {
        self.tasks.len() + self.rejected.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn has_room(&self) -> bool {
        self.len() < CHUNK_MAX && self.payload_bytes < CHUNK_BYTES_MAX
    }

    fn add(
        &mut self,
        v1::SubmitTasksRequest { sequence, task }: v1::SubmitTasksRequest,
        converter: &mut Converter<'_>,
    ) {
        let Some(task) = task else {
            self.rejected.push(rejected(sequence, &InvalidFields::one("task", "is required")));
            return;
        };
        match converter.convert(task, MessagePath::Task) {
            Ok(spec) => {
                self.payload_bytes += spec.payload.len();
                self.tasks.push((sequence, spec));
            }
            Err(error) => self.rejected.push(rejected(sequence, &error)),
        }
    }
}

/// The requests that have arrived; empty at the end of the stream. They are converted at once, since a request is much
/// larger than its task.
async fn arrived(
    requests: &mut Fuse<Streaming<v1::SubmitTasksRequest>>,
    handle: &Handle,
    caller: &Caller,
    shared: &mut Option<Box<SharedOptions>>,
) -> Chunk {
    poll_fn(|context| {
        let mut chunk = Chunk::default();
        let mut converter: Option<Converter<'_>> = None;
        while chunk.has_room() {
            match requests.poll_next_unpin(context) {
                Poll::Pending if chunk.is_empty() => return Poll::Pending,
                Poll::Pending | Poll::Ready(None) => break,
                Poll::Ready(Some(Err(error))) => {
                    chunk.error = Some(error);
                    break;
                }
                Poll::Ready(Some(Ok(request))) => {
                    let new = || Converter::new(handle, caller, None).with_send_span().after(shared.take());
                    chunk.add(request, converter.get_or_insert_with(new));
                }
            }
        }
        if let Some(converter) = converter {
            *shared = converter.into_shared();
        }
        Poll::Ready(chunk)
    })
    .await
}

/// Sends the tasks to the scheduler before it returns, so that chunks arrive in their order; before, request ids are looked
/// up. The returned future resolves, with a response for each task, when they are durable.
async fn submit(handle: &Handle, chunk: Chunk, caller: &Caller) -> impl Future<Output = Responses> + Send + use<> {
    let Chunk { tasks, rejected: mut responses, .. } = chunk;
    responses.reserve_exact(tasks.len());
    let (mut sequences, mut specs) = (Vec::with_capacity(tasks.len()), Vec::with_capacity(tasks.len()));
    for (sequence, spec) in tasks {
        match authorize(handle, caller, std::slice::from_ref(&spec)).await {
            Ok(Authorized::Submit(reservation)) => {
                sequences.push((sequence, reservation));
                specs.push(spec);
            }
            Ok(Authorized::Repeated(submitted)) => {
                responses.push(response(sequence, None, Ok(submitted), handle.store_id()));
            }
            Err(error) => responses.push(rejected(sequence, &*error)),
        }
    }
    let span = SendSpan::start(&mut specs, handle.now());
    let submitted = handle.look_up(specs).await.map(|submission| handle.submit_each(submission));
    let store = handle.store_id();
    let is_reserved = sequences.iter().any(|(_, reservation)| reservation.is_some());
    let answered = async move {
        let submitted = match submitted {
            Ok(submitted) => submitted.await,
            Err(refusal) => Err(refusal),
        };
        span.end(&submitted);
        match submitted {
            Ok(each) => {
                let each = sequences.into_iter().zip(each);
                responses.extend(
                    each.map(|((sequence, reservation), result)| response(sequence, reservation, result, store)),
                );
            }
            Err(refusal) => responses.extend(sequences.into_iter().map(|(sequence, _)| rejected(sequence, &refusal))),
        }
        responses
    };
    async move { if is_reserved { to_its_end(answered).await } else { answered.await } }
}

fn response(
    sequence: u64,
    reservation: Option<Reservation>,
    result: Result<Submitted, Refusal>,
    store: StoreId,
) -> v1::SubmitTasksResponse {
    if let (Some(reservation), Ok(submitted)) = (reservation, &result) {
        reservation.commit(submitted.revision);
    }
    match result.map(|submitted| SubmittedTask::new(submitted, store)) {
        Ok(Ok(task)) => v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Accepted(task.into())) },
        Ok(Err(error)) => rejected(sequence, &error),
        Err(refusal) => rejected(sequence, &refusal.in_message(MessagePath::Task)),
    }
}

fn rejected(sequence: u64, error: &dyn Coded) -> v1::SubmitTasksResponse {
    v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Rejected(status::to_rejection(error))) }
}
