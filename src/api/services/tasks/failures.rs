//! ListFailureGroups.

use std::borrow::Cow;
use std::cmp::Reverse;

use hashbrown::HashMap;
use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::InvalidFields;
use crate::api::convert::numbers::to_i64;
use crate::api::convert::time::timestamp;
use crate::api::status::into_status;
use crate::model::{
    Failure, FailureGroupId, FailureReason, HandlerName, Role, Task, TaskFilter, TaskId, TaskState, Timestamp,
};
use crate::proto::v1;
use crate::scheduler::{Handle, PageSize};

/// Tasks that are grouped.
const TASKS_MAX: u64 = 10_000;
const GROUPS_MAX: usize = 1_000;
const MESSAGE_BYTES_MAX: usize = 512;
/// Tasks that are in memory at once.
const PAGE: PageSize = PageSize { rows: 500, bytes: 512 << 10, results: false };
/// Memory of the groups and the response.
pub const BYTES_MAX: u64 = 8 << 20;

struct Group {
    first: Timestamp,
    last: Timestamp,
    count: u64,
    handler: HandlerName,
    reason: FailureReason,
    /// Of the last one, as its ID.
    message: String,
    example: TaskId,
}

pub async fn list(
    handle: &Handle,
    request: v1::ListFailureGroupsRequest,
    caller: &Caller,
) -> Result<v1::ListFailureGroupsResponse, Status> {
    if request.filter.as_ref().is_some_and(|filter| !filter.states.is_empty()) {
        return Err(into_status(InvalidFields::one("filter.states", "must be empty: all tasks in groups have FAILED")));
    }
    let filter = TaskFilter { states: vec![TaskState::Failed], ..caller.filter(Role::Viewer, request.filter)? };
    let mut groups: HashMap<FailureGroupId, Group> = HashMap::new();
    let (mut cursor, mut tasks, mut revision) = (None, 0, 0);
    let at_least = loop {
        let page = handle.list(filter.clone(), PAGE, cursor).await.map_err(into_status)?;
        revision = page.revision.0.max(revision);
        for task in &page.tasks {
            add(&mut groups, task);
            tasks += 1;
        }
        cursor = page.next;
        if cursor.is_none() || tasks >= TASKS_MAX {
            break cursor.is_some();
        }
    };
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_unstable_by_key(|(id, group)| (Reverse(group.count), Reverse(group.last), *id));
    groups.truncate(GROUPS_MAX);
    let groups = groups.into_iter().map(|(id, group)| message(id, group)).collect();
    Ok(v1::ListFailureGroupsResponse { groups, tasks: to_i64(tasks), at_least, revision })
}

fn add(groups: &mut HashMap<FailureGroupId, Group>, task: &Task) {
    let (Some(failure), handler) = (task.status.failure.as_deref(), &task.spec.options.handler) else { return };
    let at = task.status.finished_at.unwrap_or_default();
    let group = groups.entry(FailureGroupId::of(handler, failure)).or_insert_with(|| Group {
        first: at,
        last: at,
        count: 0,
        handler: handler.clone(),
        reason: failure.reason,
        message: text(failure),
        example: task.spec.id.clone(),
    });
    group.count += 1;
    group.first = group.first.min(at);
    if at > group.last {
        (group.last, group.message, group.example) = (at, text(failure), task.spec.id.clone());
    }
}

/// The message, and the last line of the detail.
fn text(failure: &Failure) -> String {
    let text = match failure.last_line() {
        "" => Cow::Borrowed(&*failure.message),
        line => Cow::Owned(format!("{} · {line}", failure.message)),
    };
    // A copy, which keeps no memory for the rest.
    text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned()
}

fn message(id: FailureGroupId, group: Group) -> v1::FailureGroup {
    v1::FailureGroup {
        id: id.to_string(),
        handler: group.handler.to_string(),
        reason: i32::from(group.reason as u8),
        message: group.message,
        count: to_i64(group.count),
        first_at: Some(timestamp(group.first)),
        last_at: Some(timestamp(group.last)),
        example_task_id: group.example.to_string(),
    }
}
