//! Many tasks at a time: batches, results in order, and tasks as they finish.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, SelectAll, Stream, StreamExt};
use serde::de::DeserializeOwned;
use tonic::Status;

use super::channel::Client;
use super::error::CallError;
use super::repeat::repeat;
use super::task::{Task, decoded, prepare, to_message, traced};
use super::watch::Watch;
use crate::function::{IntoPayload, TaskContext};
use crate::proto::v1::{self, TaskState};

/// Tasks that [`Client::map`] submits with one call, and the bytes of their payloads beyond which no further ones are added.
const PART_MAX: usize = 1_000;
const PART_BYTES_MAX: usize = 1 << 20;
/// Tasks without a result above which [`Client::map`] waits for results before it submits more, but not for longer than
/// [`UNREAD_TIME`] a call: the server keeps a number of finished tasks.
const UNREAD_MAX: usize = 3_000;
const UNREAD_TIME: Duration = Duration::from_secs(1);
/// Tasks in one filter.
const GROUP_MAX: usize = 1_000;

impl Client {
    /// Submits up to 10,000 tasks with one call: all of them or, after an error, none. They are returned in the same order. Like
    /// [`submit`](Self::submit) it is repeated for 30 seconds while the server cannot be reached or is full.
    ///
    /// # Errors
    /// [`CallError::Status`].
    pub async fn submit_batch(
        &self,
        tasks: impl IntoIterator<Item = v1::SubmitTaskRequest>,
    ) -> Result<Vec<Task>, CallError> {
        self.submit_to(String::new(), tasks).await
    }

    /// Submits tasks of the batch with this ID, or of a new one if it is empty.
    async fn submit_to(
        &self,
        batch_id: String,
        tasks: impl IntoIterator<Item = v1::SubmitTaskRequest>,
    ) -> Result<Vec<Task>, CallError> {
        let tasks: Vec<_> = tasks.into_iter().map(prepare).collect();
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let request = v1::BatchSubmitTasksRequest { tasks, batch_id };
        let submitted = repeat(None, || {
            let (mut client, request) = (self.tasks(), traced(request.clone()));
            async move { client.batch_submit_tasks(request).await }
        });
        Ok(submitted.await?.into_inner().task_ids.into_iter().map(|id| self.task(id)).collect())
    }

    /// Submits one task for each payload, all in one batch, and returns the results in the order of the payloads.
    ///
    /// # Errors
    /// [`CallError`] of the first task that does not complete. The other tasks go on.
    pub async fn map<T: DeserializeOwned, P: IntoPayload>(
        &self,
        handler: &str,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Vec<T>, CallError> {
        let mut results = Results { places: HashMap::new(), found: Vec::new(), unread: self.as_completed([]) };
        let batch_id = uuid::Uuid::now_v7().to_string();
        let mut part = Vec::new();
        let mut bytes = 0;
        for payload in payloads {
            let payload = payload.into_payload()?;
            bytes += payload.data.len();
            let (handler, payload) = (handler.to_owned(), Some(to_message(payload)));
            part.push(v1::SubmitTaskRequest { handler, payload, ..v1::SubmitTaskRequest::default() });
            if part.len() == PART_MAX || bytes > PART_BYTES_MAX {
                results.add(self.submit_to(batch_id.clone(), part.drain(..)).await?);
                results.read_some().await?;
                bytes = 0;
            }
        }
        results.add(self.submit_to(batch_id, part).await?);
        while !results.places.is_empty() {
            results.read().await?;
        }
        Ok(results.found.into_iter().flatten().collect())
    }

    /// The tasks in the order in which they finish, however they end.
    pub fn as_completed(&self, tasks: impl IntoIterator<Item = Task>) -> Completed {
        let mut completed = Completed { client: self.clone(), groups: SelectAll::new() };
        completed.add(tasks.into_iter().map(|task| task.id().to_owned()).collect());
        completed
    }
}

impl v1::Task {
    /// Decodes the result of a finished task from JSON.
    ///
    /// # Errors
    /// [`CallError`], also if the task has failed or was cancelled.
    pub fn into_result<T: DeserializeOwned>(self) -> Result<T, CallError> {
        Ok(decoded(self)?.json()?)
    }
}

/// Tasks as they finish; see [`Client::as_completed`].
pub struct Completed {
    client: Client,
    groups: SelectAll<BoxStream<'static, Result<v1::Task, CallError>>>,
}

impl fmt::Debug for Completed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completed").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Completed {
    /// The next finished task, with its result; `None` when all tasks have finished. Waits as long as necessary, also while the
    /// server cannot be reached. A function that waits for tasks gives its slot back meanwhile, so that they can run in it.
    ///
    /// # Errors
    /// [`CallError::Status`] if the server refuses the call, or no longer has a task. That a task has failed is no error.
    pub async fn next(&mut self) -> Option<Result<v1::Task, CallError>> {
        if let Some(next) = self.groups.next().now_or_never() {
            return next;
        }
        match TaskContext::current() {
            Some(context) => context.wait(self.groups.next()).await,
            None => self.groups.next().await,
        }
    }

    fn add(&mut self, ids: Vec<String>) {
        for ids in ids.chunks(GROUP_MAX) {
            self.groups.push(Box::pin(group(self.client.clone(), ids.to_vec())));
        }
    }
}

/// The results of [`Client::map`].
struct Results<T> {
    /// The places of the tasks that have not finished, by ID.
    places: HashMap<String, usize>,
    found: Vec<Option<T>>,
    unread: Completed,
}

impl<T: DeserializeOwned> Results<T> {
    fn add(&mut self, tasks: Vec<Task>) {
        let ids: Vec<_> = tasks.iter().map(|task| task.id().to_owned()).collect();
        self.places.extend(ids.iter().cloned().zip(self.found.len()..));
        self.found.resize_with(self.found.len() + ids.len(), || None);
        self.unread.add(ids);
    }

    /// Reads the next result.
    async fn read(&mut self) -> Result<(), CallError> {
        let Some(finished) = self.unread.next().await.transpose()? else { return Ok(()) };
        if let Some(place) = self.places.remove(&finished.task_id) {
            self.found[place] = Some(finished.into_result()?);
        }
        Ok(())
    }

    /// Reads results until few are missing, or they take long.
    async fn read_some(&mut self) -> Result<(), CallError> {
        let read = async {
            while self.places.len() > UNREAD_MAX {
                self.read().await?;
            }
            Ok(())
        };
        tokio::time::timeout(UNREAD_TIME, read).await.unwrap_or(Ok(()))
    }
}

/// Tasks of one filter as they finish: lists them, watches those that have not finished, and lists again what the watch
/// reports, which yields the results.
fn group(client: Client, ids: Vec<String>) -> impl Stream<Item = Result<v1::Task, CallError>> + Send {
    async_stream::try_stream! {
        let (mut finished, token) = list(&client, &ids).await?;
        let mut pending: HashSet<String> = ids.into_iter().collect();
        let mut watch = client.watch_after(filter(pending.iter()), token);
        loop {
            while let Some(task) = finished.pop_front() {
                take(&mut pending, &task.task_id);
                yield task;
            }
            if pending.is_empty() {
                break;
            }
            let ended = ended(&mut watch, &pending).await?;
            finished = list(&client, &ended).await?.0;
        }
    }
}

/// Waits for tasks to end, and returns those that have by now.
async fn ended(watch: &mut Watch, pending: &HashSet<String>) -> Result<Vec<String>, CallError> {
    let (mut pending, mut ended) = (pending.clone(), Vec::new());
    while ended.len() < GROUP_MAX {
        let event = match watch.next().now_or_never() {
            Some(event) => event?,
            None if ended.is_empty() => watch.next().await?,
            None => break,
        };
        if is_final(event.state()) && take(&mut pending, &event.task_id) {
            ended.push(event.task_id);
        }
    }
    Ok(ended)
}

/// The tasks among these that have finished, and a token to watch the others with.
async fn list(client: &Client, ids: &[String]) -> Result<(VecDeque<v1::Task>, String), CallError> {
    let mut missing: HashSet<String> = ids.iter().cloned().collect();
    let mut request = v1::ListTasksRequest {
        filter: Some(filter(ids)),
        page_size: i32::try_from(GROUP_MAX).unwrap_or(i32::MAX),
        include_results: true,
        ..v1::ListTasksRequest::default()
    };
    let (mut finished, mut token) = (VecDeque::new(), None);
    loop {
        let page = client.page(request.clone()).await?;
        // That of the first page: an end that a later page shows already is known when the watch reports it.
        token.get_or_insert(page.resume_token);
        for task in page.tasks {
            take(&mut missing, &task.task_id);
            if is_final(task.state()) {
                finished.push_back(task);
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    match missing.into_iter().next() {
        Some(id) => Err(Status::not_found(format!("task `{id}` does not exist, or was deleted after its end")).into()),
        None => Ok((finished, token.unwrap_or_default())),
    }
}

fn filter<'a>(ids: impl IntoIterator<Item = &'a String>) -> v1::TaskFilter {
    v1::TaskFilter { task_ids: ids.into_iter().cloned().collect(), ..v1::TaskFilter::default() }
}

/// Removes the ID of a task from a set, where it may lack the namespace with which the server shows it.
fn take(ids: &mut HashSet<String>, shown: &str) -> bool {
    ids.remove(shown) || shown.split_once('/').is_some_and(|(_, name)| ids.remove(name))
}

fn is_final(state: TaskState) -> bool {
    matches!(state, TaskState::Completed | TaskState::Failed | TaskState::Cancelled)
}
