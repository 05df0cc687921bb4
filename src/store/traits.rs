//! The interfaces of journals and projections.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::error::StoreError;
use super::page::{Page, PageCursor, PageSize};
use crate::model::{
    Batch, Durability, Event, LimitId, Output, RecoveredTask, RememberedRequest, RequestName, Revision, Schedule,
    StoreId, Task, TaskFilter, TaskId,
};

/// Bytes of one commit, as [`Commit::bytes`] counts them, unless a single decision of the scheduler is larger. A journal
/// needs about four times as much memory while it writes them.
pub const COMMIT_BYTES_MAX: usize = 4 << 20;

/// Events that become durable together. Their revisions are consecutive.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// At least one.
    pub events: Vec<Event>,
    /// Whether the commit must be on the disk before it counts as appended. False only when every event belongs to
    /// a task with durability MEMORY.
    pub sync: bool,
    /// About the size when encoded, as [`Event::encoded_bytes`] counts.
    pub bytes: usize,
}

impl Commit {
    /// Adds up the bytes of the events.
    pub fn new(events: Vec<Event>, sync: bool) -> Self {
        let bytes = Event::all_encoded_bytes(&events, None);
        Self { events, sync, bytes }
    }

    pub fn first(&self) -> Revision {
        self.events.first().map_or_else(Revision::default, Event::revision)
    }

    pub fn last(&self) -> Revision {
        self.events.last().map_or_else(Revision::default, Event::revision)
    }

    /// About the bytes that the events occupy in memory, without what they share with others.
    pub fn memory_bytes(&self) -> usize {
        self.bytes + self.events.len() * Event::UNENCODED_BYTES
    }
}

/// Why a commit is not known to be durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The commit was certainly not written. It may be appended again, now or after a restart.
    #[error(transparent)]
    Refused(StoreError),
    /// The commit may be in the journal or not: its sync failed, or the connection was lost before the answer. Only a
    /// new opening of the journal finds out. Every later append of this handle has the same outcome.
    #[error(transparent)]
    Unknown(StoreError),
    /// Another opening of the journal has a larger epoch. The commit was not written, and no later one will be.
    #[error(transparent)]
    Fenced(StoreError),
}

impl AppendError {
    /// Whether only a new opening of the journal can append again.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl From<AppendError> for StoreError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Refused(error) | AppendError::Unknown(error) | AppendError::Fenced(error) => error,
        }
    }
}

/// Called once with the outcome of [`Journal::append_in_background`]. Runs on the journal's thread: it must not block.
pub type AppendDone = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// The source of truth: an append-only, checksummed sequence of commits.
///
/// A handle is one opening of the journal, with an epoch of its own. An append succeeds only while no other opening has a
/// larger one, and only if the commit follows the last one: of several appends in flight, those behind a failed one fail
/// with the same error. A commit becomes durable as a whole or not at all.
pub trait Journal: Send + Sync + 'static {
    /// Appends on the calling thread. Blocks on the disk.
    fn append(&self, commit: &Arc<Commit>) -> Result<(), AppendError>;

    /// Hands the commit to the journal's thread without blocking. Commits that wait there are appended and reported in
    /// order, and may share one sync.
    fn append_in_background(&self, commit: Arc<Commit>, done: AppendDone);

    /// How many appends are worth having in flight while commits are small. With 1, decisions that are made during an
    /// append share the next one, which is best if an append keeps a local disk busy. Larger if most of an append's time
    /// is latency.
    fn appends_in_flight(&self) -> usize {
        1
    }

    /// Identity of the store to which the revisions belong.
    fn store_id(&self) -> StoreId;

    /// Number of this opening of the journal: larger than that of every earlier one. Has been durable since the journal
    /// was opened.
    fn epoch(&self) -> u64;

    /// The strongest durability that an append can reach.
    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    /// Makes every commit durable that was appended without a sync. Blocks on the disk.
    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whole commits after `after`, in order: at least one, and about `limit` events. Empty only when there are no
    /// later events. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when events after `after` were trimmed; [`StoreError::Corrupt`].
    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError>;

    /// The smallest revision that [`Journal::read`] accepts as `after`.
    fn oldest(&self) -> Revision;

    /// The revision after which there are at most about this many bytes of commits; `None` if there are no more in all.
    fn excess(&self, bytes: u64) -> Option<Revision>;

    /// Deletes the commits that end at `up_to` or before. Their events must be durable in the projection.
    /// Blocks on the disk.
    fn trim(&self, up_to: Revision) -> Result<(), StoreError>;
}

/// One row per task, derived from the journal; answers queries. Queries block on the disk: call them from a thread
/// that may block.
pub trait Projection: Send + Sync + 'static {
    /// Applies a durable commit; commits must arrive in order. Never blocks: a commit that does not fit into memory
    /// is read back from the journal later.
    fn apply(&self, commit: Arc<Commit>);

    /// Makes queries see everything applied so far without the usual delay. Does not wait.
    fn flush(&self) {}

    /// The revision that [`Projection::list`] sees. Without [`Projection::flush`] it may lag by about two seconds.
    fn revision(&self) -> watch::Receiver<Revision>;

    /// Why the projection cannot be written at present, such as a full disk.
    fn fault(&self) -> watch::Receiver<Option<StoreError>>;

    /// The revision that all queries of single tasks see, which does not lag unless the commits that are to be written are
    /// far too many. They may see later events too.
    fn task_revision(&self) -> Revision;

    /// What [`Projection::get`] returns, if that is known without a look at the disk. Does not block.
    fn recent(&self, id: &TaskId) -> Option<Task>;

    /// One task with its result, and `with_payload` also with its payload.
    fn get(&self, id: &TaskId, with_payload: bool) -> Result<Option<Task>, StoreError>;

    /// Bytes of the result, and `with_payload` also of the payload, that [`Projection::get`] would read for a task. Of large
    /// ones only, and only if they are in the tables. 0 for an unknown task.
    fn stored_bytes(&self, id: &TaskId, with_payload: bool) -> Result<u64, StoreError>;

    /// The payload of the task that was submitted at this revision; `None` if the task was deleted.
    fn payload(&self, submission: Revision) -> Result<Option<Bytes>, StoreError>;

    /// The output of an attempt, with the attempt's number. `attempt` 0 means the last attempt that ended.
    fn output(&self, id: &TaskId, attempt: u32) -> Result<Option<(u32, Output)>, StoreError>;

    /// One page, newest submission first. Uses no more memory than the page may.
    fn list(&self, filter: &TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, StoreError>;

    /// What is remembered of these request IDs, whatever happened to their tasks. A damaged row is an error.
    fn requests(&self, names: &[RequestName]) -> Result<FoundRequests, StoreError>;

    /// Makes everything applied so far durable and returns its revision. The journal may be trimmed up to there.
    fn checkpoint(&self) -> Result<Revision, StoreError>;
}

/// Request IDs as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRequests {
    /// Later submissions are missing.
    pub revision: Revision,
    /// In the order of the names.
    pub requests: Vec<Option<RememberedRequest>>,
}

/// Receives the content of a store at a start, one task and one event after another, so that the memory of a restart
/// does not depend on the size of the store.
pub trait Recover {
    /// Comes first. Comes again, and everything received so far is void, if the projection turns out to be corrupt and is
    /// rebuilt. `revision` is that of the projection, and `subjects` has the last event of each pool and handler up to it.
    fn begin(&mut self, revision: Revision, subjects: &[Event]);

    /// A batch of the projection. Batches come before the tasks, in the order of creation.
    fn restore_batch(&mut self, batch: Batch);

    /// A schedule of the projection. As for batches.
    fn restore_schedule(&mut self, schedule: Schedule);

    /// A limit of tasks whose token bucket may not be full, and the time at which it is, in nanoseconds since the epoch. These come
    /// before the tasks.
    fn restore_bucket(&mut self, limit: LimitId, full_at: u64);

    /// A task of the projection, finished or not. Tasks come in the order of submission. The receiver copies the payload
    /// if it wants to keep it.
    fn restore(&mut self, task: RecoveredTask, payload: &[u8]);

    /// An event that the projection does not contain. Returns false if it belongs to a task that is unknown, so that it
    /// changes nothing.
    fn replay(&mut self, event: &Event) -> bool;

    /// Comes last if the previous server did not close the store.
    fn crashed(&mut self) {}
}
