//! WatchTasks and RunTask: following events.

use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;
use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::{InvalidFields, event, task};
use crate::model::{Revision, Role, Task, TaskFilter, TaskId, limits};
use crate::proto::v1::{self, run_task_response, watch_tasks_response};
use crate::scheduler::{Draining, Handle, PageSize, Refusal, Watch, fold};

use super::{Body, refused};

/// How often a quiet watch tells how far it is, when the caller does not say.
const PROGRESS_DEFAULT: Duration = Duration::from_secs(5);

/// What is held of a snapshot at once.
const SNAPSHOT: PageSize = PageSize { rows: 250, bytes: 1 << 20, results: false };

/// A step of a watch.
fn step(kind: watch_tasks_response::Kind) -> v1::WatchTasksResponse {
    v1::WatchTasksResponse { kind: Some(kind) }
}

/// The steps of a watch.
pub fn watch(
    handle: Handle,
    request: v1::WatchTasksRequest,
    caller: &Caller,
) -> Result<Body<v1::WatchTasksResponse>, Status> {
    let mut bad = InvalidFields::default();
    let bounds = limits::INTERVAL_MIN..=limits::INTERVAL_MAX;
    let interval = bad.span("progress_interval", request.progress_interval.as_ref(), bounds);
    if request.include_snapshot && request.after_revision.is_some() {
        bad.add("after_revision", "cannot go with include_snapshot; a snapshot tells its own revision");
    }
    bad.check().map_err(refused)?;
    let parsed = caller.filter(Role::Viewer, request.filter)?;
    let after = request.after_revision.map(Revision);
    let watch = handle.watch(parsed.clone(), after).map_err(refused)?;
    let interval = interval.unwrap_or(PROGRESS_DEFAULT);
    if request.include_snapshot {
        return Ok(Box::pin(snapshot_then_events(handle, parsed, watch, interval)));
    }
    Ok(Box::pin(events(watch, interval)))
}

/// Tasks as they stand, page by page, and then their events. A page is read later than the watch
/// began: after each the watch catches up with it, and leaves out what its rows have shown. So all
/// that was given is true at the revision that ends the snapshot.
fn snapshot_then_events(
    handle: Handle,
    filter: TaskFilter,
    mut watch: Watch,
    interval: Duration,
) -> impl futures_util::Stream<Item = Result<v1::WatchTasksResponse, Status>> {
    async_stream::try_stream! {
        let mut cursor = None;
        loop {
            let page = handle.list(filter.clone(), SNAPSHOT, cursor).await.map_err(refused)?;
            cursor = page.next;
            let shown = newer(&page.tasks, watch.reached());
            for row in page.tasks {
                let view = task::View { payload: false, result: false };
                yield step(watch_tasks_response::Kind::SnapshotEntry(task::task(row, view)));
            }
            while watch.reached() < page.revision {
                for event in &watch.next().await.map_err(unfinished)? {
                    if shown.get(&event.task).is_none_or(|shown| event.revision > *shown) {
                        yield step(watch_tasks_response::Kind::Event(event::event(event)));
                    }
                }
            }
            if cursor.is_none() {
                break;
            }
        }
        let complete = v1::SnapshotComplete { revision: watch.reached().0 };
        yield step(watch_tasks_response::Kind::SnapshotComplete(complete));
        for await next in events(watch, interval) {
            yield next?;
        }
    }
}

/// What ends a snapshot before it is complete: there is no revision yet that it could go on after.
fn unfinished(refusal: Refusal) -> Status {
    match refusal {
        Refusal::WatchDrained(_) => refused(Draining),
        other => refused(other),
    }
}

/// The tasks that changed after a revision, and when they did.
fn newer(tasks: &[Task], after: Revision) -> HashMap<TaskId, Revision> {
    let changed = tasks.iter().filter(|task| task.status.revision > after);
    changed.map(|task| (task.spec.id.clone(), task.status.revision)).collect()
}

/// Events as they come, and how far the watch is when they do not.
fn events(
    mut watch: Watch,
    interval: Duration,
) -> impl futures_util::Stream<Item = Result<v1::WatchTasksResponse, Status>> {
    async_stream::try_stream! {
        let mut told_at = Instant::now();
        loop {
            let reached = watch.reached();
            let found = {
                // Kept over the interval: a read of old events may take longer, and would begin anew.
                tokio::pin! { let next = watch.next(); }
                loop {
                    match tokio::time::timeout_at(told_at + interval, next.as_mut()).await {
                        Ok(found) => break found.map_err(refused)?,
                        Err(_) => {
                            told_at = Instant::now();
                            yield progress(reached);
                        }
                    }
                }
            };
            for event in &found {
                yield step(watch_tasks_response::Kind::Event(event::event(event)));
            }
            if !found.is_empty() {
                told_at = Instant::now();
            } else if told_at.elapsed() >= interval {
                // Others' events keep it busy.
                told_at = Instant::now();
                yield progress(watch.reached());
            }
        }
    }
}

fn progress(Revision(revision): Revision) -> v1::WatchTasksResponse {
    step(watch_tasks_response::Kind::Progress(v1::WatchProgress { revision }))
}

/// The steps of a run: accepted, events, the finished task.
pub fn run(handle: Handle, accepted: v1::SubmitTaskResponse) -> Result<Body<v1::RunTaskResponse>, Status> {
    let id = crate::api::convert::task_id(&accepted.task_id).map_err(refused)?;
    let only = TaskFilter { ids: vec![id.clone()], ..TaskFilter::default() };
    let watch = handle.watch(only, Some(Revision(accepted.after_revision))).map_err(refused)?;
    Ok(Box::pin(run_steps(handle, watch, id, accepted)))
}

fn run_steps(
    handle: Handle,
    mut watch: Watch,
    id: TaskId,
    accepted: v1::SubmitTaskResponse,
) -> impl futures_util::Stream<Item = Result<v1::RunTaskResponse, Status>> {
    let step = |kind| v1::RunTaskResponse { kind: Some(kind) };
    async_stream::try_stream! {
        let duplicate = accepted.duplicate;
        yield step(run_task_response::Kind::Accepted(accepted));
        let mut ended = duplicate && handle.get(&id).await.map_err(refused)?.task.status.state.is_terminal();
        // Its own events tell all of it, even when retention forgets it at once.
        let mut seen = None;
        while !ended {
            for event in watch.next().await.map_err(refused)? {
                if !ended {
                    fold(&mut seen, &event);
                    ended = event.state.is_terminal();
                }
                yield step(run_task_response::Kind::Event(event::event(&event)));
            }
        }
        let view = task::View { payload: false, result: true };
        let last = match seen {
            Some(seen) => task::task(seen, view),
            None => task::found(handle.get(&id).await.map_err(refused)?, view),
        };
        yield step(run_task_response::Kind::Task(last));
    }
}
