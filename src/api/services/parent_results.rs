//! ReadParentResults: streams the results of the parents of a task to the worker that runs it.

use std::sync::Arc;

use futures_util::Stream;
use prost::Message;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::api::auth::Caller;
use crate::api::convert::{InvalidFields, task};
use crate::api::status::into_status;
use crate::model::{Dependencies, Payload, TaskId, TaskState};
use crate::proto::v1::{self, payload::Kind};
use crate::scheduler::{Handle, TaskParts};

use super::running_task;

/// Bytes of results in one message.
const MESSAGE_BYTES: usize = 256 << 10;

/// # Errors
/// INVALID_FIELD.
pub async fn read(
    handle: Handle,
    request: v1::ReadParentResultsRequest,
    caller: &Caller,
) -> Result<BoxStream<v1::ReadParentResultsResponse>, Status> {
    let negative = |_| into_status(InvalidFields::one("skip", format!("is {}, must not be negative", request.skip)));
    let skipped = usize::try_from(request.skip).map_err(negative)?;
    let (task, _) = running_task::find(&handle, &request.task_id, &request.token, caller).await?;
    let dependencies = task.extras().dependencies.clone();
    Ok(match dependencies {
        Some(dependencies) => Box::pin(results(handle, dependencies, skipped, caller.share_name())),
        None => Box::pin(futures_util::stream::empty()),
    })
}

fn results(
    handle: Handle,
    dependencies: Arc<Dependencies>,
    skipped: usize,
    caller: Arc<str>,
) -> impl Stream<Item = Result<v1::ReadParentResultsResponse, Status>> {
    async_stream::try_stream! {
        let (mut message, mut bytes) = (v1::ReadParentResultsResponse::default(), 0);
        for parent in dependencies.parents.iter().skip(skipped) {
            // The memory of a large result is held until the caller has taken it.
            let found = handle.get_for_response(&parent.id, TaskParts::default(), &caller).await;
            let (snapshot, _memory) = found.map_err(into_status)?;
            let status = snapshot.task.status;
            for part in parts(&parent.id, status.state, status.result) {
                let part_bytes = part.encoded_len();
                if bytes > 0 && bytes + part_bytes > MESSAGE_BYTES {
                    yield std::mem::take(&mut message);
                    bytes = 0;
                }
                bytes += part_bytes;
                message.results.push(part);
            }
        }
        if bytes > 0 {
            yield message;
        }
    }
}

/// The parts of the result of a parent, at least one.
fn parts(id: &TaskId, state: TaskState, result: Option<Payload>) -> Vec<v1::ParentResult> {
    let first = v1::ParentResult { task_id: id.to_string(), state: task::state(state), ..v1::ParentResult::default() };
    let Some(Payload { mut data, content_type }) = result else { return vec![first] };
    let (mut part, mut content_type) = (first, content_type.to_string());
    let mut parts = Vec::new();
    loop {
        let bytes = data.split_to(data.len().min(MESSAGE_BYTES));
        part.result =
            Some(v1::Payload { kind: Some(Kind::Data(bytes)), content_type: std::mem::take(&mut content_type) });
        part.has_more = !data.is_empty();
        parts.push(std::mem::take(&mut part));
        if data.is_empty() {
            return parts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_result_has_several_parts_of_which_the_first_names_the_parent() {
        let id = TaskId::parse("p").unwrap();
        let parts_of = |bytes: usize| {
            let data = (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>();
            let result = Payload { data: data.clone().into(), content_type: "text/plain".into() };
            (data, parts(&id, TaskState::Completed, Some(result)))
        };
        for (bytes, count) in [(0, 1), (MESSAGE_BYTES, 1), (2 * MESSAGE_BYTES + 1, 3)] {
            let (data, parts) = parts_of(bytes);
            assert_eq!(parts.len(), count);
            assert_eq!((&*parts[0].task_id, parts[0].state()), ("p", v1::TaskState::Completed));
            assert_eq!(parts[0].result.as_ref().unwrap().content_type, "text/plain");
            assert!(parts[1..].iter().all(|part| part.task_id.is_empty()));
            let more: Vec<bool> = parts.iter().map(|part| part.has_more).collect();
            assert_eq!(more, (1..=count).map(|number| number < count).collect::<Vec<_>>());
            let received = parts.into_iter().map(|part| part.result.and_then(|result| result.kind));
            let received = received.flat_map(|kind| match kind {
                Some(Kind::Data(data)) => data,
                other => panic!("{other:?}"),
            });
            assert_eq!(received.collect::<Vec<_>>(), data);
        }
        let failed = parts(&id, TaskState::Failed, None);
        assert!(failed.len() == 1 && failed[0].result.is_none() && !failed[0].has_more);
    }
}
