//! Actions on all tasks that match a filter: CancelTasks, RetryTasks and UpdateTasks.
//!
//! The scheduler gets a page at a time, or a few tasks, and the next ones when these are durable. So a call for a million tasks stops
//! neither the scheduler nor other callers, and ends with its stream.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{self, BoxFuture};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tonic::Status;
use tonic_types::StatusExt;

use crate::api::status::into_status;
use crate::model::{Task, TaskFilter};
use crate::scheduler::{Handle, Page, PageCursor, PageSize, Refusal};

/// Tasks that are read at once, and about the time between two messages.
const PAGE: PageSize = PageSize { rows: 500, bytes: 512 << 10, results: false };
/// Tasks of [`one_by_one`] that are under way at once.
const REQUESTS_MAX: usize = 64;
/// Why a task is left out: it is no longer one of those that the action is for.
const SKIPPED: [&str; 6] =
    ["TASK_NOT_FOUND", "TASK_FINISHED", "TASK_STARTED", "TASK_NOT_FINISHED", "UNIQUE_KEY_TAKEN", "PARENT_NOT_FOUND"];

/// What an action has made of a task.
pub enum Outcome {
    Done,
    /// It was asked to stop, and runs still.
    Stopping,
    /// The ID of a new task.
    New(String),
    Skipped,
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Tasks that matched when they were found, or when it was their turn.
    pub matched: u64,
    pub done: u64,
    /// Of those done, the tasks that run still.
    pub stopping: u64,
    pub skipped: u64,
    /// New tasks since the last message.
    pub new: Vec<String>,
}

impl Counts {
    /// Of a page in which `found` tasks matched, `left` match still: more, if others have changed meanwhile.
    fn begin_page(&mut self, found: u64, left: u64) {
        self.matched += left.saturating_sub(found);
        self.skipped += found.saturating_sub(left);
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Skipped => return self.skipped += 1,
            Outcome::Done => {}
            Outcome::Stopping => self.stopping += 1,
            Outcome::New(id) => self.new.push(id),
        }
        self.done += 1;
    }
}

/// Reads the newest tasks that match now and were submitted before a revision.
type ReadPage = Box<dyn Fn(u64) -> BoxFuture<'static, Result<Page, Status>> + Send + Sync>;

/// The tasks that match at one time, found in pages.
pub struct Selection {
    read: ReadPage,
    /// Revisions of the submissions of each page, the oldest page last, and the number of tasks that were found in it.
    pages: Vec<(Range<u64>, u64)>,
    /// Where the search continues; `None` at its end.
    next: Option<PageCursor>,
}

impl Selection {
    /// `caller` is whose turn it is when memory is short.
    pub fn new(handle: Handle, caller: Arc<str>, filter: TaskFilter) -> Self {
        Self::of(Box::new(move |before| {
            let (handle, caller, filter) = (handle.clone(), caller.clone(), filter.clone());
            async move {
                let _memory = handle.reserve_stream_read(&caller, 2 * PAGE.bytes as u64).await;
                handle.list(filter, PAGE, Some(PageCursor(before))).await.map_err(into_status)
            }
            .boxed()
        }))
    }

    fn of(read: ReadPage) -> Self {
        Self { read, pages: Vec::new(), next: Some(PageCursor(u64::MAX)) }
    }

    /// Finds the next page, and returns its number of tasks; `None` when all were found.
    pub async fn find(&mut self) -> Result<Option<u64>, Status> {
        let Some(PageCursor(before)) = self.next else { return Ok(None) };
        let page = (self.read)(before).await?;
        // What is submitted later is no part of it.
        let end = before.min(page.revision.0 + 1);
        self.next = page.next;
        if !page.tasks.is_empty() {
            self.pages.push((page.next.map_or(0, |next| next.0)..end, page.tasks.len() as u64));
        }
        Ok(Some(page.tasks.len() as u64))
    }

    /// The tasks of the oldest page that match now, oldest submission first, and the number of those that were found in it; `None`
    /// after the last page. Call it when all pages were found.
    pub async fn take(&mut self) -> Result<Option<(Vec<Task>, u64)>, Status> {
        while let Some((rows, found)) = self.pages.pop() {
            let page = (self.read)(rows.end).await?;
            let Some(PageCursor(middle)) = page.next.filter(|next| next.0 > rows.start) else {
                let tasks = page.tasks.into_iter().filter(|task| rows.contains(&task.status.submission.0));
                return Ok(Some((tasks.rev().collect(), found)));
            };
            // More tasks match than when they were found: these are two pages now. Those that were found count in the newer one,
            // which has that many, so that none counts as gone.
            let in_newer = found.min(page.tasks.len() as u64);
            self.pages.push((middle..rows.end, in_newer));
            self.pages.push((rows.start..middle, found - in_newer));
        }
        Ok(None)
    }
}

/// Calls `ended` once, also when the client ends the call before.
struct Call<E: FnOnce(&Counts, &Result<(), Status>)> {
    counts: Counts,
    result: Result<(), Status>,
    ended: Option<E>,
}

impl<E: FnOnce(&Counts, &Result<(), Status>)> Drop for Call<E> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended(&self.counts, &self.result);
        }
    }
}

/// Counts the tasks that match, and then does something to those of each page: `act` has one outcome for each task, or fewer and an
/// error. A message follows each page.
pub fn run<R, S: Stream<Item = Result<Outcome, Status>>>(
    mut selection: Selection,
    validate_only: bool,
    act: impl Fn(Vec<Task>) -> S,
    respond: impl Fn(Counts) -> R,
    ended: impl FnOnce(&Counts, &Result<(), Status>),
) -> impl Stream<Item = Result<R, Status>> {
    async_stream::stream! {
        let gone = Err(Status::cancelled("the client has ended the call"));
        let mut call = Call { counts: Counts::default(), result: gone, ended: Some(ended) };
        let mut result = Ok(());
        loop {
            match selection.find().await {
                Ok(Some(found)) => call.counts.matched += found,
                Ok(None) => break,
                Err(status) => {
                    result = Err(status);
                    break;
                }
            }
            yield Ok(respond(call.counts.clone()));
        }
        while !validate_only && result.is_ok() {
            let (tasks, found) = match selection.take().await {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                Err(status) => {
                    result = Err(status);
                    break;
                }
            };
            call.counts.begin_page(found, tasks.len() as u64);
            let mut outcomes = pin!(act(tasks));
            while let Some(outcome) = outcomes.next().await {
                match outcome {
                    Ok(outcome) => call.counts.add(outcome),
                    Err(status) if is_skipped(&status) => call.counts.add(Outcome::Skipped),
                    Err(status) => result = result.and(Err(status)),
                }
            }
            yield Ok(respond(call.counts.clone()));
            call.counts.new.clear();
        }
        call.result.clone_from(&result);
        drop(call);
        if let Err(status) = result {
            yield Err(status);
        }
    }
}

/// The outcomes of a request for all tasks of a page.
pub fn at_once<T>(
    request: impl Future<Output = Result<Vec<Result<T, Refusal>>, Refusal>>,
    outcome: impl Fn(T) -> Outcome,
) -> impl Stream<Item = Result<Outcome, Status>> {
    let outcomes = request.map(|results| results.unwrap_or_else(|refusal| vec![Err(refusal)]));
    stream::once(outcomes).flat_map(stream::iter).map(move |result| result.map(&outcome).map_err(into_status))
}

/// The outcomes of a request for each task. Those that are under way when one fails are done, too.
pub fn one_by_one<F: Future<Output = Result<Outcome, Status>>>(
    tasks: Vec<Task>,
    act: impl Fn(Task) -> F,
) -> impl Stream<Item = Result<Outcome, Status>> {
    let has_failed = Arc::new(AtomicBool::new(false));
    let failed = has_failed.clone();
    let tasks = stream::iter(tasks).take_while(move |_| future::ready(!failed.load(Ordering::Relaxed)));
    tasks.map(act).buffered(REQUESTS_MAX).inspect(move |outcome| {
        if outcome.as_ref().is_err_and(|status| !is_skipped(status)) {
            has_failed.store(true, Ordering::Relaxed);
        }
    })
}

fn is_skipped(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| SKIPPED.contains(&&*info.reason))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::model::{Revision, TaskId, TaskOptions, TaskSpec, TaskState, TaskStatus, Timestamp};

    /// Revisions of the submissions of the tasks that match, in pages of three.
    #[derive(Clone, Default)]
    struct Matching(Arc<Mutex<Vec<u64>>>);

    impl Matching {
        fn change(&self, change: impl FnOnce(&mut Vec<u64>)) {
            change(&mut self.0.lock().unwrap());
        }

        fn page(&self, before: u64) -> Page {
            let matching = self.0.lock().unwrap();
            let mut newest: Vec<u64> = matching.iter().copied().filter(|&at| at < before).collect();
            newest.sort_unstable_by(|a, b| b.cmp(a));
            let next = (newest.len() > 3).then(|| PageCursor(newest[2]));
            let (id, options) = (TaskId::Uuid([0; 16]), Arc::new(TaskOptions::sample()));
            let spec = Arc::new(TaskSpec { id, options, payload: Box::default(), extras: None });
            let at = Timestamp::default();
            let status = |revision| TaskStatus::submitted(TaskState::Queued, Revision(revision), at, at);
            let task = |revision: &u64| Task { spec: spec.clone(), status: status(*revision) };
            Page { tasks: newest.iter().take(3).map(task).collect(), next, revision: Revision(100) }
        }

        fn selection(&self) -> Selection {
            let matching = self.clone();
            Selection::of(Box::new(move |before| future::ready(Ok(matching.page(before))).boxed()))
        }
    }

    #[tokio::test]
    async fn a_page_in_which_more_tasks_match_meanwhile_is_taken_in_parts() {
        let matching = Matching::default();
        matching.change(|all| all.extend([10, 20, 30, 40, 50]));
        let mut selection = matching.selection();
        let mut counts = Counts::default();
        while let Some(found) = selection.find().await.unwrap() {
            counts.matched += found;
        }
        // Others match in both pages, and are submitted after the search.
        matching.change(|all| all.extend([11, 12, 21, 31, 41, 42, 43, 101]));
        let mut parts = Vec::new();
        while let Some((tasks, found)) = selection.take().await.unwrap() {
            let part: Vec<u64> = tasks.iter().map(|task| task.status.submission.0).collect();
            counts.begin_page(found, part.len() as u64);
            // They no longer match, as after a cancellation.
            matching.change(|all| all.retain(|at| !part.contains(at)));
            parts.push(part);
        }
        assert_eq!(parts, [vec![10, 11], vec![12, 20, 21], vec![30], vec![31, 40, 41], vec![42, 43, 50]]);
        assert_eq!((counts.matched, counts.skipped), (12, 0));
    }

    #[test]
    fn tasks_that_others_change_meanwhile_are_counted() {
        let mut counts = Counts { matched: 7, ..Counts::default() };
        counts.begin_page(5, 3);
        counts.begin_page(2, 6);
        assert_eq!(
            (counts.matched, counts.skipped),
            (11, 2),
            "2 of the first page have ended, 4 more match in the second"
        );
    }
}
