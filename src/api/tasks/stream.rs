//! SubmitTasks: tasks as they come, answers as they become durable.

use futures_util::stream::{FuturesUnordered, StreamExt};
use tonic::Streaming;

use crate::api::convert::{InvalidFields, Place};
use crate::api::status;
use crate::model::Coded;
use crate::proto::v1::{self, submit_tasks_response::Outcome};
use crate::scheduler::{Draining, Handle};

use super::{Body, refused};

/// Tasks of one stream whose answers are still to come; beyond, no more are read.
const IN_FLIGHT_MAX: usize = 1_024;

/// Answers in the order in which they become known.
pub fn answers(
    handle: Handle,
    mut requests: Streaming<v1::SubmitTasksRequest>,
    caller: String,
) -> Body<v1::SubmitTasksResponse> {
    Box::pin(async_stream::stream! {
        let draining = handle.draining();
        tokio::pin! { let drained = draining.cancelled(); }
        let mut under_way = FuturesUnordered::new();
        let mut more = true;
        let mut end = None;
        while more || !under_way.is_empty() {
            tokio::select! {
                biased;
                () = &mut drained, if more => {
                    more = false;
                    end = Some(refused(Draining));
                }
                Some(answer) = under_way.next() => yield Ok(answer),
                request = requests.next(), if more && under_way.len() < IN_FLIGHT_MAX => match request {
                    Some(Ok(request)) => match begin(&handle, request, &caller) {
                        Ok(answer) => under_way.push(answer),
                        Err(rejected) => yield Ok(*rejected),
                    },
                    // The caller sent garbage or has gone: what was accepted stays accepted, and is
                    // answered while somebody listens.
                    Some(Err(error)) => {
                        more = false;
                        end = Some(error);
                    }
                    None => more = false,
                },
            }
        }
        if let Some(status) = end {
            yield Err(status);
        }
    })
}

/// Sends the task at once; the future resolves when it is durable.
fn begin(
    handle: &Handle,
    request: v1::SubmitTasksRequest,
    caller: &str,
) -> Result<impl Future<Output = v1::SubmitTasksResponse> + Send + use<>, Box<v1::SubmitTasksResponse>> {
    let sequence = request.sequence;
    let task = request.task.ok_or_else(|| Box::new(rejected(sequence, &InvalidFields::one("task", "is missing"))))?;
    let spec = super::submit::spec(handle, task, Place::Task, caller);
    let spec = spec.map_err(|error| Box::new(rejected(sequence, &error)))?;
    let answer = handle.submit(vec![spec]);
    Ok(async move {
        match answer.await {
            Ok(submitted) => match super::submit::accepted(submitted) {
                Ok(accepted) => v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Accepted(accepted)) },
                Err(error) => rejected(sequence, &error),
            },
            Err(refusal) => rejected(sequence, &refusal),
        }
    })
}

fn rejected(sequence: u64, condition: &dyn Coded) -> v1::SubmitTasksResponse {
    v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Rejected(status::rejection(condition))) }
}
