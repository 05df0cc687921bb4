//! WatchTasks and RunTask: stream task events.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hashbrown::HashMap;
use tokio::time::Instant;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::api::auth::Caller;
use crate::api::convert::{InvalidFields, event, task};
use crate::api::status::into_status;
use crate::model::{Event, ResumeToken, Revision, Role, Task, TaskEvent, TaskFilter, TaskId, limits};
use crate::proto::v1::{self, run_task_response, watch_tasks_response};
use crate::scheduler::{Draining, EventRef, Handle, PageSize, Refusal, Watch, fold};

use super::submit::SubmittedTask;

const PROGRESS_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// Maximum size of the part of a snapshot that is in memory at once.
const SNAPSHOT_PAGE: PageSize = PageSize { rows: 250, bytes: 256 << 10, results: false };

fn message(kind: watch_tasks_response::Kind) -> v1::WatchTasksResponse {
    v1::WatchTasksResponse { kind: Some(kind) }
}

/// Starts a watch.
pub fn watch(
    handle: Handle,
    request: v1::WatchTasksRequest,
    caller: &Caller,
) -> Result<BoxStream<v1::WatchTasksResponse>, Status> {
    let mut invalid = InvalidFields::default();
    let bounds = limits::INTERVAL_MIN..=limits::INTERVAL_MAX;
    let interval = invalid.duration("progress_interval", request.progress_interval.as_ref(), bounds);
    let after = match request.resume_token.as_str() {
        "" => None,
        _ if request.include_snapshot => {
            invalid.add("resume_token", "must not be set together with include_snapshot");
            None
        }
        text => {
            let token = ResumeToken::parse(text, handle.store_id());
            token.map_err(|error| invalid.add("resume_token", error)).ok().map(|token| token.revision)
        }
    };
    invalid.check().map_err(into_status)?;
    let filter = caller.filter(Role::Viewer, request.filter)?;
    let watch = handle.watch(filter.clone(), after, caller.share_name()).map_err(into_status)?;
    let interval = interval.unwrap_or(PROGRESS_INTERVAL_DEFAULT);
    if request.include_snapshot {
        return Ok(Box::pin(snapshot_then_events(handle, caller.share_name(), filter, watch, interval)));
    }
    Ok(Box::pin(events(watch, interval)))
}

/// Streams the existing tasks page by page, then their events.
///
/// A page is read after the watch has started. After each page, the events up to the revision of the page are sent,
/// except those that its rows already include. So all messages together are consistent at the revision that ends the
/// snapshot.
fn snapshot_then_events(
    handle: Handle,
    caller: Arc<str>,
    filter: TaskFilter,
    mut watch: Watch,
    interval: Duration,
) -> impl Stream<Item = Result<v1::WatchTasksResponse, Status>> {
    async_stream::try_stream! {
        let mut cursor = None;
        loop {
            let memory = handle.reserve_stream_read(&caller, 2 * SNAPSHOT_PAGE.bytes as u64).await;
            let page = handle.list(filter.clone(), SNAPSHOT_PAGE, cursor).await.map_err(into_status)?;
            cursor = page.next;
            let included = changed_since(&page.tasks, watch.reached());
            for row in page.tasks {
                let entry = task::task(row, task::Include { payload: false, result: false });
                yield message(watch_tasks_response::Kind::SnapshotEntry(Box::new(entry)));
            }
            // The watch may need memory of the same part.
            drop(memory);
            while watch.reached() < page.revision {
                let next = watch.next().await.map_err(snapshot_error)?;
                let is_news =
                    |event: &&TaskEvent| included.get(&event.task).is_none_or(|included| event.revision > *included);
                if let Some(event) = converted(next, is_news) {
                    yield message(watch_tasks_response::Kind::Event(event));
                }
            }
            if cursor.is_none() {
                break;
            }
        }
        let at = watch.resume_token(watch.reached());
        let complete = v1::SnapshotComplete { revision: at.revision.0, resume_token: at.encode() };
        yield message(watch_tasks_response::Kind::SnapshotComplete(complete));
        for await next in events(watch, interval) {
            yield next?;
        }
    }
}

/// The error of a watch with an incomplete snapshot has no token to resume with.
fn snapshot_error(refusal: Refusal) -> Status {
    match refusal {
        Refusal::WatchDrained(_) => into_status(Draining),
        other => into_status(other),
    }
}

/// Returns the tasks that changed after a revision, with the revision of their last change.
fn changed_since(tasks: &[Task], after: Revision) -> HashMap<TaskId, Revision> {
    let changed = tasks.iter().filter(|task| task.status.revision > after);
    changed.map(|task| (task.spec.id.clone(), task.status.revision)).collect()
}

/// The event as a message, if it is a task's and `is_wanted`. The commit of the event need not stay in memory then.
fn converted(event: Option<EventRef>, is_wanted: impl Fn(&&TaskEvent) -> bool) -> Option<Box<v1::TaskEvent>> {
    event.as_deref().and_then(Event::task).filter(is_wanted).map(event::event).map(Box::new)
}

/// Streams events, and a progress message when no event was sent for `interval`.
fn events(mut watch: Watch, interval: Duration) -> impl Stream<Item = Result<v1::WatchTasksResponse, Status>> {
    async_stream::try_stream! {
        let mut sent_at = Instant::now();
        loop {
            let reached = watch.resume_token(watch.reached());
            let next = {
                // Not dropped after an interval: reading old events can take longer and would start again.
                tokio::pin! { let next = watch.next_until(Some(sent_at + interval)); }
                loop {
                    match tokio::time::timeout_at(sent_at + interval, next.as_mut()).await {
                        Ok(next) => break next.map_err(into_status)?,
                        Err(_) => {
                            sent_at = Instant::now();
                            yield progress(reached);
                        }
                    }
                }
            };
            if let Some(mut event) = converted(next, |_| true) {
                event.resume_token = watch.resume_token(Revision(event.revision)).encode();
                yield message(watch_tasks_response::Kind::Event(event));
                sent_at = Instant::now();
            } else if sent_at.elapsed() >= interval {
                // No event matched for the interval.
                sent_at = Instant::now();
                yield progress(watch.resume_token(watch.reached()));
            }
        }
    }
}

fn progress(reached: ResumeToken) -> v1::WatchTasksResponse {
    let progress = v1::WatchProgress { revision: reached.revision.0, resume_token: reached.encode() };
    message(watch_tasks_response::Kind::Progress(progress))
}

/// Starts the stream of RunTask for a submitted task.
pub fn run(
    handle: Handle,
    submitted: SubmittedTask,
    caller: Arc<str>,
) -> Result<BoxStream<v1::RunTaskResponse>, Status> {
    let filter = TaskFilter { ids: vec![submitted.id.clone()], ..TaskFilter::default() };
    let watch = handle.watch(filter, Some(submitted.resume.revision), caller).map_err(into_status)?;
    Ok(Box::pin(run_messages(handle, watch, submitted)))
}

fn run_messages(
    handle: Handle,
    mut watch: Watch,
    submitted: SubmittedTask,
) -> impl Stream<Item = Result<v1::RunTaskResponse, Status>> {
    let message = |kind| v1::RunTaskResponse { kind: Some(kind) };
    async_stream::try_stream! {
        let (id, duplicate) = (submitted.id.clone(), submitted.duplicate);
        yield message(run_task_response::Kind::Accepted(submitted.into()));
        let mut finished = duplicate && handle.get(&id).await.map_err(into_status)?.task.status.state.is_terminal();
        // Built from the events of the task, because retention can delete the task as soon as it is finished.
        let mut folded = None;
        while !finished {
            let next = watch.next().await.map_err(into_status)?;
            if let Some(event) = next.as_deref().and_then(Event::task) {
                fold(&mut folded, event);
                finished = event.state.is_terminal();
            }
            if let Some(mut event) = converted(next, |_| true) {
                event.resume_token = watch.resume_token(Revision(event.revision)).encode();
                yield message(run_task_response::Kind::Event(event));
            }
        }
        let include = task::Include { payload: false, result: true };
        let task = match folded {
            Some(folded) => task::task(folded, include),
            None => task::snapshot(handle.get(&id).await.map_err(into_status)?, include),
        };
        yield message(run_task_response::Kind::Task(Box::new(task)));
    }
}
