//! SubmitTasks: tasks as they come, answers as they become durable.

use futures_util::stream::{FuturesUnordered, StreamExt};
use tonic::{Status, Streaming};

use crate::api::convert::{InvalidFields, submit};
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
        let mut under_way = FuturesUnordered::new();
        let mut more = true;
        while more || !under_way.is_empty() {
            tokio::select! {
                Some(answer) = under_way.next() => yield Ok(answer),
                request = requests.next(), if more && under_way.len() < IN_FLIGHT_MAX => match request {
                    Some(Ok(request)) => match begin(&handle, request, &caller) {
                        Ok(answer) => under_way.push(answer),
                        Err(rejected) => yield Ok(*rejected),
                    },
                    // The caller has gone or sent garbage; what was accepted stays accepted.
                    Some(Err(error)) => {
                        yield Err(error);
                        return;
                    }
                    None => more = false,
                },
                () = draining.cancelled(), if more => {
                    if under_way.is_empty() {
                        yield Err(refused(Draining));
                        return;
                    }
                    more = false;
                }
            }
        }
        if draining.is_cancelled() {
            yield Err(refused(Draining));
        }
    })
}

fn begin(
    handle: &Handle,
    request: v1::SubmitTasksRequest,
    caller: &str,
) -> Result<impl Future<Output = v1::SubmitTasksResponse> + Send + use<>, Box<v1::SubmitTasksResponse>> {
    let sequence = request.sequence;
    let rejected = move |condition: &dyn Coded| {
        let outcome = Some(Outcome::Rejected(status::rejection(condition)));
        Box::new(v1::SubmitTasksResponse { sequence, outcome })
    };
    let task = request.task.ok_or_else(|| rejected(&InvalidFields::one("task", "is missing")))?;
    let context = submit::Context { handle, now: handle.now(), submitted_by: caller, batch: None, prefix: "task." };
    let spec = submit::spec(task, &context).map_err(|error| rejected(&error))?;
    let answer = handle.submit(vec![spec]);
    Ok(async move {
        match answer.await {
            Ok(submitted) => match super::submit::accepted(submitted) {
                Ok(accepted) => v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Accepted(accepted)) },
                Err(error) => rejected_with(sequence, &error),
            },
            Err(refusal) => *rejected(&refusal),
        }
    })
}

fn rejected_with(sequence: u64, error: &Status) -> v1::SubmitTasksResponse {
    let rejection = v1::Rejection {
        code: error.code().into(),
        reason: "INTERNAL".to_owned(),
        message: error.message().to_owned(),
        ..v1::Rejection::default()
    };
    v1::SubmitTasksResponse { sequence, outcome: Some(Outcome::Rejected(rejection)) }
}
