//! Durable truth: a journal of events, and a projection of it that answers questions.
//!
//! Two contracts, each with a memory and an SQLite implementation that pass the same suite
//! (`conformance`). The journal is the only truth; the projection can be rebuilt from it as far as
//! the journal reaches.

mod backup;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod files;
mod folding;
pub mod journal;
mod journal_check;
#[cfg(test)]
mod log_damage;
mod mark;
pub mod memory;
pub mod open;
mod pools;
pub mod projection;
mod projection_check;
mod projection_query;
mod projection_rows;
mod projection_sql;
mod record;
mod record_parts;
mod record_trace;
#[cfg(test)]
mod samples;
mod sqlite;
mod wal;

use std::path::PathBuf;
use std::sync::Arc;

pub use backup::{Contents, backup, check};
pub use folding::fold;
pub use open::{Options, open, rebuild};
pub use pools::{KeptPool, PoolBounds};

use tokio::sync::watch;

use crate::model::{Durability, Event, Output, RecoveredTask, Revision, Task, TaskFilter, TaskId};

/// Events that become durable together, in the order of their revisions and without a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// At least one.
    pub events: Vec<Event>,
    /// Whether `done` may only be called when the bytes are on the disk. False only when every
    /// event belongs to a task of durability MEMORY.
    pub sync: bool,
}

impl Commit {
    /// Revision of the first event.
    pub fn first(&self) -> Revision {
        self.events.first().map_or_else(Revision::default, |event| event.revision)
    }

    /// Revision of the last event.
    pub fn last(&self) -> Revision {
        self.events.last().map_or_else(Revision::default, |event| event.revision)
    }
}

/// Called once, from the journal's own thread, when a commit is durable or has failed.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The only truth: an append-only, checksummed sequence of commits.
pub trait Journal: Send + Sync + 'static {
    /// Appends. Never blocks; several appends under way become durable in order and may share a sync.
    ///
    /// A commit that failed has left no trace: the same revisions may be appended again later.
    fn append(&self, commit: Arc<Commit>, done: Done);

    /// Appends like [`Journal::append`], and returns when that is done. Blocks on the disk.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn append_now(&self, commit: Arc<Commit>) -> Result<(), StoreError> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        // The receiver is there until it has the answer.
        self.append(commit, Box::new(move |result| drop(sender.send(result))));
        answer.recv().map_err(|_| StoreError::Closed)?
    }

    /// What a commit that was asked to be synced has really reached.
    fn reaches(&self) -> Durability {
        Durability::Fsync
    }

    /// Events after `after`, in order, at least one and about `limit` of them (whole commits);
    /// empty only when there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when events after `after` were trimmed; [`StoreError::Corrupt`].
    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError>;

    /// The oldest revision that can still be given to [`Journal::read`] as `after`.
    fn oldest(&self) -> Revision;

    /// Keeps how a pool was changed, in place of what was kept of it before; durable when it returns. Blocks.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn keep_pool(&self, kept: &KeptPool) -> Result<(), StoreError>;

    /// Forgets events up to and including `up_to`; they must be durable in the projection. Blocks.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn trim(&self, up_to: Revision) -> Result<(), StoreError>;
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Newest submission first. Payloads are left out.
    pub tasks: Vec<Task>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<PageCursor>,
    /// The revision at which the page is true.
    pub revision: Revision,
}

/// What one page may hold.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// Tasks, at least 1.
    pub rows: usize,
    /// Bytes of all its tasks, about as many as on the wire. The first task is there however large it is.
    pub bytes: usize,
    /// Whether tasks carry their results.
    pub results: bool,
}

impl PageSize {
    /// Whether a page is full before this task.
    fn is_reached(&self, page: &Page, bytes: usize, task: &Task) -> bool {
        page.tasks.len() >= self.rows || (!page.tasks.is_empty() && bytes + weight(task) > self.bytes)
    }
}

/// Bytes of a task, about.
fn weight(task: &Task) -> usize {
    /// Numbers, times and short names.
    const FIXED: usize = 512;
    let (spec, options, status) = (&task.spec, &task.spec.options, &task.status);
    let labels = options.labels.iter().map(|(key, value)| key.len() + value.len() + 8);
    let args = spec.extras().args.iter().map(|arg| arg.len() + 8);
    let request = spec.extras().request_id.as_deref().map_or(0, str::len);
    let failure = status.failure.as_deref().map_or(0, |failure| failure.message.len() + failure.detail.len());
    let result = status.result.as_ref().map_or(0, |result| result.data.len() + result.content_type.len());
    let texts = options.display_name.len() + options.submitted_by.len() + options.content_type.len() + request;
    FIXED + texts + labels.sum::<usize>() + args.sum::<usize>() + failure + spec.payload.len() + result
}

/// Position in a listing: the submission revision of the last row shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor(pub u64);

/// The journal, folded: a row per task. Blocks on the disk; call from a blocking context.
pub trait Projection: Send + Sync + 'static {
    /// Takes a durable commit, in order. Never blocks; what does not fit into its memory it reads back
    /// from the journal.
    fn feed(&self, commit: Arc<Commit>);

    /// Somebody waits for answers that have reached everything fed so far.
    fn hurry(&self) {}

    /// The revision that answers have reached. Without [`Projection::hurry`] it follows at leisure.
    fn reached(&self) -> watch::Receiver<Revision>;

    /// Why it does not follow at present: the disk is full, or what is in the file cannot be true.
    fn trouble(&self) -> watch::Receiver<Option<StoreError>>;

    /// One task with payload and result.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError>;

    /// What an attempt wrote (0: the last one that ended).
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn output(&self, id: &TaskId, attempt: u32) -> Result<Option<(u32, Output)>, StoreError>;

    /// One page, newest submission first. Holds no more in memory than the page may.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn list(&self, filter: &TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, StoreError>;

    /// Makes everything taken so far durable and returns its revision: up to there the journal may be trimmed.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    fn checkpoint(&self) -> Result<Revision, StoreError>;
}

/// What a restart finds: the projection's rows, and the journal's events after them.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Every task of the projection, live and finished, in the order of submission. Results are left out.
    pub tasks: Vec<RecoveredTask>,
    /// The revision at which they are true.
    pub revision: Revision,
    /// Everything later, in order.
    pub events: Vec<Event>,
    /// Pools that were changed while a server ran.
    pub pools: Vec<KeptPool>,
    /// What the operator should know, such as a projection that was rebuilt.
    pub notes: Vec<String>,
}

/// An opened store. Dropping it closes the files, once all handles are gone.
#[derive(Clone)]
pub struct Store {
    /// The truth.
    pub journal: Arc<dyn Journal>,
    /// The answers.
    pub projection: Arc<dyn Projection>,
    /// `sqlite` or `memory`.
    pub kind: &'static str,
}

/// Why the store cannot do what was asked. The texts name the file and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A record's bytes are not what was written.
    #[error("`{}` is damaged at {place}: {detail}; restore it from a back-up", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Commit or row.
        place: String,
        /// What does not fit.
        detail: String,
    },
    /// The projection is gone or damaged, and the journal does not have all that it was made of.
    #[error(
        "`{}` {what}, and cannot be made anew: the journal begins after revision {begin}, so tasks submitted up to \
         there would be lost, live ones too; restore a back-up, or, to accept that loss, run \
         `lineshaft store rebuild {}`",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    Lost {
        /// The projection's file.
        path: PathBuf,
        /// `is missing`, or what is wrong with it.
        what: String,
        /// Revisions up to here are not in the journal any more.
        begin: Revision,
    },
    /// Not a file of this program, or of a later version.
    #[error("`{}` cannot be used: {detail}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found and what to do.
        detail: String,
    },
    /// Another server has the directory.
    #[error("`{}` is in use by another server; stop it, or choose another data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// No space is left.
    #[error("no space is left for `{}`; free some, writing resumes by itself", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file or directory cannot be written or read.
    #[error("failed to {action} `{}`: {detail}", path.display())]
    Io {
        /// Such as `open` or `append to`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words and the remedy.
        detail: String,
    },
    /// Events that were asked for have been trimmed.
    #[error("revisions up to {oldest} are no longer kept")]
    Compacted {
        /// The oldest revision that can still be given as `after`.
        oldest: Revision,
    },
    /// The store's thread has gone; only after a bug or during shutdown.
    #[error("the store is closed")]
    Closed,
}
