//! SubmitTasks: tasks as they come, answers as they become durable.

use futures_util::stream::{FuturesUnordered, StreamExt};
use tonic::Streaming;

use crate::api::auth::{Caller, Reservation, audit};
use crate::api::convert::{InvalidFields, Place};
use crate::api::status;
use crate::model::Coded;
use crate::proto::v1::{self, submit_tasks_response::Outcome};
use crate::scheduler::{Draining, Handle, Refusal, Submitted};

use super::{Body, refused};

/// Tasks of one stream whose answers are still to come; beyond, no more are read.
const IN_FLIGHT_MAX: usize = 1_024;
/// Tasks that are handed over at once, when so many have come already.
const CHUNK_MAX: usize = 256;

type Answers = Vec<v1::SubmitTasksResponse>;

/// Answers in the order in which they become known.
pub fn answers(
    handle: Handle,
    requests: Streaming<v1::SubmitTasksRequest>,
    caller: Caller,
) -> Body<v1::SubmitTasksResponse> {
    Box::pin(async_stream::stream! {
        let draining = handle.draining();
        tokio::pin! {
            let drained = draining.cancelled();
            let requests = requests.ready_chunks(CHUNK_MAX);
        }
        let mut under_way = FuturesUnordered::new();
        let mut in_flight = 0;
        let mut more = true;
        let mut end = None;
        let mut accepted = 0_u64;
        while more || !under_way.is_empty() {
            tokio::select! {
                biased;
                () = &mut drained, if more => {
                    more = false;
                    end = Some(refused(Draining));
                }
                Some(answers) = under_way.next() => {
                    let answers: Answers = answers;
                    in_flight -= answers.len();
                    for answer in answers {
                        accepted += u64::from(matches!(answer.outcome, Some(Outcome::Accepted(_))));
                        yield Ok(answer);
                    }
                }
                chunk = requests.next(), if more && in_flight <= IN_FLIGHT_MAX - CHUNK_MAX => {
                    let mut tasks = Vec::new();
                    for request in chunk.into_iter().flatten() {
                        match request {
                            Ok(request) => tasks.push(request),
                            // The caller sent garbage or has gone: what was accepted stays accepted, and
                            // is answered while somebody listens.
                            Err(error) => end = Some(error),
                        }
                    }
                    more = end.is_none() && !tasks.is_empty();
                    if !tasks.is_empty() {
                        in_flight += tasks.len();
                        under_way.push(submit(&handle, tasks, &caller));
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

/// Sends the tasks at once; the future resolves, with an answer for each, when they are durable.
fn submit(
    handle: &Handle,
    requests: Vec<v1::SubmitTasksRequest>,
    caller: &Caller,
) -> impl Future<Output = Answers> + Send + use<> {
    let mut answers = Vec::with_capacity(requests.len());
    let (mut sequences, mut specs) = (Vec::with_capacity(requests.len()), Vec::with_capacity(requests.len()));
    let context = super::submit::Submitter::new(handle, caller);
    for v1::SubmitTasksRequest { sequence, task } in requests {
        let Some(task) = task else {
            answers.push(rejected(sequence, &InvalidFields::one("task", "is missing")));
            continue;
        };
        let spec = match context.spec(task, Place::Task) {
            Ok(spec) => spec,
            Err(error) => {
                answers.push(rejected(sequence, &error));
                continue;
            }
        };
        match super::submit::admit(caller, std::slice::from_ref(&spec)) {
            Ok(reservation) => {
                sequences.push((sequence, reservation));
                specs.push(spec);
            }
            Err(error) => answers.push(rejected(sequence, &*error)),
        }
    }
    let sending = super::send_span::begin(&mut specs, handle.now());
    let submitted = handle.submit_each(specs);
    async move {
        let submitted = submitted.await;
        sending.end(&submitted);
        match submitted {
            Ok(each) => answers.extend(sequences.into_iter().zip(each).map(|(of, one)| answer(of, one))),
            Err(refusal) => answers.extend(sequences.into_iter().map(|(sequence, _)| rejected(sequence, &refusal))),
        }
        answers
    }
}

fn answer(
    (sequence, reservation): (u64, Option<Reservation>),
    submitted: Result<Submitted, Refusal>,
) -> v1::SubmitTasksResponse {
    if let (Some(reservation), Ok(submitted)) = (reservation, &submitted) {
        reservation.commit(submitted.revision);
    }
    match submitted.map(super::submit::accepted) {
        Ok(Ok(accepted)) => v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Accepted(accepted)) },
        Ok(Err(error)) => rejected(sequence, &error),
        Err(refusal) => rejected(sequence, &refusal),
    }
}

fn rejected(sequence: u64, condition: &dyn Coded) -> v1::SubmitTasksResponse {
    v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Rejected(status::rejection(condition))) }
}
