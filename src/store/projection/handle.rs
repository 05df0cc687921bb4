//! The handle of the projection.

use std::fs::File;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread::Builder;

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::watch;

use super::body_check::verify_bodies;
use super::entities::for_each;
use super::list;
use super::query;
use super::queue::CommitQueue;
use super::requests::{self, RequestTable};
use super::schema::{Meta, SCHEMA};
use super::subjects::load_subjects;
use super::tokens;
use super::unwritten::{History, Location};
use super::worker::{Shared, Worker};
use super::writer::Writer;
use crate::model::{
    Batch, Event, LimitId, Output, RequestName, RequestRetention, Revision, Schedule, Task, TaskChange, TaskEvent,
    TaskFilter, TaskId, TaskSpec,
};
use crate::store::error::StoreError;
use crate::store::page::{Page, PageCursor, PageSize};
use crate::store::record::{ended_attempt, output_of};
use crate::store::sqlite::{Readers, keep_wal_on_close, open_writer, sqlite_error, verify_structure};
use crate::store::threads::OwnedThread;
use crate::store::traits::{Commit, FoundRequests, Journal, Projection};
use crate::store::watermark::{Watermark, WatermarkRecord};
use crate::threads::lower_priority;

/// Memory for the pages that a transaction changes. A larger transaction writes pages early and reads them again.
const CACHE_KIB: u32 = 32 << 10;

// The thread is joined before the readers are closed.
pub struct SqliteProjection {
    _thread: OwnedThread,
    shared: Arc<Shared>,
    revision: watch::Receiver<Revision>,
    readers: Readers,
    _lock: Option<Arc<File>>,
}

impl SqliteProjection {
    /// Opens or creates the file and starts its thread. A new file starts after the revision `start`. `memory` is about the
    /// number of bytes for commits that are not written yet.
    pub fn open(
        path: &Path,
        start: Revision,
        journal: Arc<dyn Journal>,
        lock: Option<Arc<File>>,
        retention: RequestRetention,
        memory: usize,
    ) -> Result<Self, StoreError> {
        let watermark = WatermarkRecord::read(path)?;
        let connection = open_writer(path, &SCHEMA)?;
        let failed = |error| sqlite_error("open", path, &error);
        let settings =
            format!("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -{CACHE_KIB};");
        connection.execute_batch(&settings).map_err(failed)?;
        let mut meta = Meta::load(&connection, path)?;
        if meta == Meta::default() && start > meta.revision {
            meta.revision = start;
            meta.store(&connection).map_err(failed)?;
        }
        watermark.check(path, meta.revision.0)?;
        keep_wal_on_close(&connection, false).map_err(failed)?;
        let watermark = Watermark::create(path, meta.revision.0, watermark)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            queue: CommitQueue::new(meta.revision, memory),
            fault: watch::Sender::new(None),
            submission_times: Arc::default(),
            journal,
        });
        let (written, revision) = watch::channel(meta.revision);
        let subjects = load_subjects(&connection, path)?;
        let requests = RequestTable::load(&connection, path, retention)?;
        let times = Arc::clone(&shared.submission_times);
        let writer = Writer::new(connection, path, meta, subjects, times, requests);
        let worker = Worker::new(Arc::clone(&shared), writer, watermark, written).map_err(failed)?;
        let thread = OwnedThread::spawn("projection", path, move || {
            lower_priority();
            worker.run();
        })?;
        Ok(Self { _thread: thread, shared, revision, readers: Readers::new(path), _lock: lock })
    }

    /// Calls `visit` with each task, in the order of submission and without its result, with its payload. Returns the
    /// revision of the projection. Must be called before the tables are written and queried.
    ///
    /// # Errors
    /// [`StoreError::Malformed`], or [`StoreError::Corrupt`] when any row or index entry differs from what was written.
    pub fn for_each_task(&self, mut visit: impl FnMut(Task, &[u8])) -> Result<Revision, StoreError> {
        let path = &*self.shared.path;
        let visit = |task: Task, payload: &[u8]| {
            self.shared.submission_times.lock().add(task.status.submission.0, task.status.submitted_at);
            visit(task, payload);
        };
        let check = || {
            self.readers.with(|connection| {
                verify_structure(connection, path, &SCHEMA)?;
                requests::verify_at_start(connection, path)?;
                verify_bodies(connection, path)
            })
        };
        std::thread::scope(|scope| {
            let thread = Builder::new().name("projection-check".to_owned()).spawn_scoped(scope, check);
            let found = self.readers.with(|connection| query::for_each_task(connection, path, visit));
            let results = match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // There are too many threads to do it beside.
                Err(_) => check(),
            }?;
            let (revision, expected) = found?;
            results.verify(&expected, path)?;
            Ok(revision)
        })
    }

    /// Calls `visit` with each batch, in the order of creation. Must be called before the tables are written.
    ///
    /// # Errors
    /// As [`SqliteProjection::for_each_task`].
    pub fn for_each_batch(&self, visit: impl FnMut(Batch)) -> Result<(), StoreError> {
        self.readers.with(|connection| for_each(connection, &self.shared.path, visit))
    }

    /// As [`SqliteProjection::for_each_batch`] for schedules.
    ///
    /// # Errors
    /// As [`SqliteProjection::for_each_task`].
    pub fn for_each_schedule(&self, visit: impl FnMut(Schedule)) -> Result<(), StoreError> {
        self.readers.with(|connection| for_each(connection, &self.shared.path, visit))
    }

    /// Calls `visit` with each limit whose token bucket may not be full, and the time at which it is, in nanoseconds. Must be
    /// called before the tables are written.
    ///
    /// # Errors
    /// As [`SqliteProjection::for_each_task`].
    pub fn for_each_bucket(&self, visit: impl FnMut(LimitId, u64)) -> Result<(), StoreError> {
        self.readers.with(|connection| tokens::for_each_bucket(connection, &self.shared.path, visit))
    }

    /// The last event of each pool.
    pub fn subjects(&self) -> Result<Vec<Event>, StoreError> {
        let subjects = self.readers.with(|connection| load_subjects(connection, &self.shared.path))?;
        Ok(subjects.events().to_vec())
    }

    /// A payload that is damaged in the tables.
    ///
    /// # Errors
    /// The damage, if the journal has been trimmed or is damaged too; or why the journal cannot be read now.
    fn payload_of_journal(&self, submission: Revision, damage: StoreError) -> Result<Bytes, StoreError> {
        let event = match self.journal_event(submission) {
            Ok(Some(event)) => event,
            Ok(None) => return Err(damage),
            Err(error) if error.is_damage() => return Err(damage),
            Err(error) => return Err(error),
        };
        let Event::Task(TaskEvent { change: TaskChange::Submitted { spec }, task, .. }) = event else {
            return Err(damage);
        };
        tracing::warn!(%task, error = %damage, "read a damaged payload from the journal instead");
        Ok(TaskSpec::payload_of(&spec))
    }

    /// `None` if the journal has been trimmed: then the tables contain the event.
    fn journal_event(&self, revision: Revision) -> Result<Option<Event>, StoreError> {
        match self.shared.journal.read(Revision(revision.0.saturating_sub(1)), 1) {
            Ok(events) => Ok(events.into_iter().next()),
            Err(StoreError::Compacted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The task, and those of its events that the tables may lack.
    fn task_and_history(&self, id: &TaskId, with_payload: bool) -> Result<(Option<Task>, History), StoreError> {
        let history = self.shared.queue.search(id).history(|revision| self.journal_event(revision))?;
        let mut task = None;
        if !history.is_complete() {
            task = self.query(|connection, path| query::get(connection, path, id, with_payload))?;
        }
        history.advance(&mut task);
        Ok((task, history))
    }

    fn query<T>(&self, run: impl FnOnce(&Connection, &Path) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.shared.queue.check_failure()?;
        self.readers.with(|connection| run(connection, &self.shared.path))
    }
}

impl Projection for SqliteProjection {
    fn apply(&self, commit: Arc<Commit>) {
        self.shared.queue.push(commit);
    }

    fn flush(&self) {
        self.shared.queue.flush();
    }

    fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.clone()
    }

    fn fault(&self) -> watch::Receiver<Option<StoreError>> {
        self.shared.fault.subscribe()
    }

    fn task_revision(&self) -> Revision {
        self.shared.queue.searchable_to().unwrap_or_else(|| *self.revision.borrow())
    }

    fn recent(&self, id: &TaskId) -> Option<Task> {
        let history = self.shared.queue.search(id).in_memory()?;
        let mut task = None;
        history.advance(&mut task);
        task
    }

    fn get(&self, id: &TaskId, with_payload: bool) -> Result<Option<Task>, StoreError> {
        Ok(self.task_and_history(id, with_payload)?.0)
    }

    fn stored_bytes(&self, id: &TaskId, with_payload: bool) -> Result<u64, StoreError> {
        self.query(|connection, path| query::body_bytes(connection, path, id, with_payload))
    }

    fn payload(&self, submission: Revision) -> Result<Option<Bytes>, StoreError> {
        let unwritten = match self.shared.queue.find(submission) {
            Some(Location::Memory(commit, position)) => commit.events.get(position).cloned(),
            Some(Location::Journal(revision)) => self.journal_event(revision)?,
            None => None,
        };
        if let Some(TaskChange::Submitted { spec }) =
            unwritten.as_ref().and_then(Event::task).map(|event| &event.change)
        {
            return Ok(Some(TaskSpec::payload_of(spec)));
        }
        let stored = self.query(|connection, path| query::payload(connection, path, submission));
        match stored {
            Err(error) if error.is_damage() => self.payload_of_journal(submission, error).map(Some),
            stored => stored,
        }
    }

    fn output(&self, id: &TaskId, attempt: u32) -> Result<Option<(u32, Output)>, StoreError> {
        let (task, history) = self.task_and_history(id, false)?;
        let Some(status) = task.map(|task| task.status) else { return Ok(None) };
        let Some(attempt) = ended_attempt(&status, attempt) else { return Ok(None) };
        let of_attempt = history.events.iter().filter(|event| event.attempt == attempt);
        let output = match of_attempt.filter_map(output_of).next_back() {
            Some(output) => output.clone(),
            None if history.is_complete() => Output::default(),
            None => self.query(|connection, path| query::output(connection, path, id, status.submission, attempt))?,
        };
        Ok(Some((attempt, output)))
    }

    fn list(&self, filter: &TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, StoreError> {
        let times = &self.shared.submission_times;
        self.query(|connection, path| list::list(connection, path, times, filter, size, after))
    }

    fn requests(&self, names: &[RequestName]) -> Result<FoundRequests, StoreError> {
        self.query(|connection, path| {
            let revision = Meta::load(connection, path)?.revision;
            Ok(FoundRequests { revision, requests: requests::find(connection, path, names)? })
        })
    }

    fn checkpoint(&self) -> Result<Revision, StoreError> {
        let done = self.shared.queue.request_checkpoint()?;
        done.recv().map_err(|_| StoreError::Closed)?
    }
}

impl Drop for SqliteProjection {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}
