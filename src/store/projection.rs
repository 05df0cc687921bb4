//! The projection in SQLite: a thread that keeps it up, and readers that answer from it.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tokio::sync::watch;

use super::journal::{SqliteJournal, spawn, step_back};
use super::mark::{Known, Mark};
use super::open::io_fault;
use super::projection_query as query;
use super::projection_sql::{Meta, SCHEMA, Writer};
use super::sqlite::{Readers, checkpoint, fault, keep_log, open_writer};
use super::{Commit, Journal, Page, PageCursor, PageSize, Projection, StoreError};
use crate::model::{Event, Output, RecoveredTask, Revision, Task, TaskFilter, TaskId};

/// Events that may wait in memory; beyond, they are read back from the journal when their turn comes.
const WAITING_MAX: usize = if cfg!(test) { 8 } else { 400_000 };
/// Bytes of payloads, results and outputs that those events may hold.
const WAITING_BYTES_MAX: usize = 128 << 20;
/// Events read back at a time.
const READ_BACK: usize = if cfg!(test) { 16 } else { 50_000 };
/// Events of one transaction, about.
const DRAIN_MAX: usize = 200_000;
/// How long events may wait when nobody asks: much of what they say is overtaken by then, and a task
/// that is forgotten meanwhile is never written.
const LINGER: Duration = Duration::from_millis(500);
/// Memory for pages that a transaction changes: beyond it they are written before their time, and read again.
const CACHE_KIB: u32 = 32 << 10;
/// How long nothing has to come before the memory that only speeds up writing is given back.
const IDLE: Duration = Duration::from_secs(1);
/// Time between attempts to write when the disk refuses.
const RETRY: Duration = Duration::from_millis(500);
/// Pages of the write-ahead log after which it is copied into the file: 32 MiB.
const CHECKPOINT_PAGES: i32 = 8192;

/// The file `projection.db`.
pub struct SqliteProjection {
    shared: Arc<Shared>,
    readers: Readers,
    reached: watch::Receiver<Revision>,
    thread: Option<JoinHandle<()>>,
    _lock: Option<Arc<File>>,
}

struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
    /// There is something to do.
    ready: Condvar,
    /// Why the last transaction could not be written.
    trouble: watch::Sender<Option<StoreError>>,
    /// What did not fit into the queue is there.
    journal: Arc<SqliteJournal>,
}

#[derive(Default)]
struct Queue {
    /// Each with the bytes that it holds.
    commits: VecDeque<(Arc<Commit>, usize)>,
    events: usize,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    /// Somebody waits for what was fed.
    hurried: bool,
    /// The last revision that was taken.
    fed: Revision,
    /// Set while events are missing behind those that wait: up to here they are in the journal only.
    skipped_to: Option<Revision>,
    checkpoints: Vec<(Revision, SyncSender<Result<Revision, StoreError>>)>,
    closed: bool,
    /// Set for good when what is in the file cannot be true.
    failure: Option<StoreError>,
}

impl Shared {
    /// The projection may reach the disk by itself at any time, and must never be ahead of the journal.
    fn sync_journal(&self) -> Result<(), StoreError> {
        let synced = self.journal.mark().sync_log_if_behind();
        synced.map_err(|error| io_fault("sync the journal for", &self.path, &error))
    }
}

impl SqliteProjection {
    /// Opens or creates the file and starts its thread. A new file begins after revision `begin`.
    ///
    /// # Errors
    /// Any of [`StoreError`].
    pub fn open(
        path: &Path,
        begin: Revision,
        journal: Arc<SqliteJournal>,
        lock: Option<Arc<File>>,
    ) -> Result<Self, StoreError> {
        let known = Known::read(path)?;
        let mut connection = open_writer(path, &SCHEMA)?;
        let failed = |error| fault("open", path, &error);
        let settings =
            format!("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -{CACHE_KIB};");
        connection.execute_batch(&settings).map_err(failed)?;
        let mut meta = Meta::load(&connection, path)?;
        if meta == Meta::default() && begin > meta.revision {
            meta.revision = begin;
            meta.store(&connection).map_err(failed)?;
        }
        known.check(path, meta.revision.0)?;
        keep_log(&connection, false).map_err(failed)?;
        let mark = Mark::begin(path, meta.revision.0, known)?;
        let lengthy = watch_log(&mut connection).map_err(failed)?;
        let (reach, reached) = watch::channel(meta.revision);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            queue: Mutex::new(Queue { fed: meta.revision, ..Queue::default() }),
            ready: Condvar::new(),
            trouble: watch::Sender::new(None),
            journal,
        });
        let worked = Arc::clone(&shared);
        let thread = spawn("projection", path, move || {
            step_back();
            let log = Log { mark, long: lengthy };
            keep_up(&worked, Writer::new(connection, &worked.path, meta), &log, &reach);
        })?;
        Ok(Self { shared, readers: Readers::new(path), reached, thread: Some(thread), _lock: lock })
    }

    /// Every task, in the order of submission, without results; and the revision.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when any row is not what was written.
    pub(super) fn recover(&self) -> Result<(Vec<RecoveredTask>, Revision), StoreError> {
        self.readers.with(|connection| query::recover(connection, &self.shared.path))
    }

    fn failure(&self) -> Result<(), StoreError> {
        self.shared.queue.lock().failure.clone().map_or(Ok(()), Err)
    }
}

impl Projection for SqliteProjection {
    fn feed(&self, commit: Arc<Commit>) {
        let mut queue = self.shared.queue.lock();
        if queue.failure.is_some() {
            return;
        }
        queue.fed = queue.fed.max(commit.last());
        if queue.skipped_to.is_some() || queue.events >= WAITING_MAX || queue.bytes >= WAITING_BYTES_MAX {
            queue.skipped_to = Some(queue.fed);
            return;
        }
        let before = queue.events;
        queue.events += commit.events.len();
        let bytes = commit.events.iter().map(Event::weight).sum();
        queue.bytes += bytes;
        queue.commits.push_back((commit, bytes));
        queue.since.get_or_insert_with(Instant::now);
        // The thread is woken when it has to look at the time, and when there is enough.
        let wake = before == 0 || (before < DRAIN_MAX && queue.events >= DRAIN_MAX);
        drop(queue);
        if wake {
            self.shared.ready.notify_one();
        }
    }

    fn hurry(&self) {
        let mut queue = self.shared.queue.lock();
        if !queue.commits.is_empty() && !std::mem::replace(&mut queue.hurried, true) {
            self.shared.ready.notify_one();
        }
    }

    fn reached(&self) -> watch::Receiver<Revision> {
        self.reached.clone()
    }

    fn trouble(&self) -> watch::Receiver<Option<StoreError>> {
        self.shared.trouble.subscribe()
    }

    fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        self.failure()?;
        self.readers.with(|connection| query::get(connection, &self.shared.path, id))
    }

    fn output(&self, id: &TaskId, attempt: u32) -> Result<Option<(u32, Output)>, StoreError> {
        self.failure()?;
        self.readers.with(|connection| query::output(connection, &self.shared.path, id, attempt))
    }

    fn list(&self, filter: &TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, StoreError> {
        self.failure()?;
        self.readers.with(|connection| query::list(connection, &self.shared.path, filter, size, after))
    }

    fn checkpoint(&self) -> Result<Revision, StoreError> {
        let (reply, answer) = sync_channel(1);
        {
            let mut queue = self.shared.queue.lock();
            if let Some(failure) = &queue.failure {
                return Err(failure.clone());
            }
            let wanted = queue.fed;
            queue.checkpoints.push((wanted, reply));
        }
        self.shared.ready.notify_one();
        answer.recv().map_err(|_| StoreError::Closed)?
    }
}

impl Drop for SqliteProjection {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.ready.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The write-ahead log, as far as it is looked after here and not by SQLite.
struct Log {
    mark: Mark,
    long: Arc<AtomicBool>,
}

impl Log {
    /// Makes all that was written durable, and copies it into the file as far as no reader is in the way.
    fn copy(&self, shared: &Shared, writer: &Writer<'_>) -> Result<(), StoreError> {
        self.mark.settle().map_err(|error| io_fault("sync", &shared.path, &error))?;
        checkpoint(&writer.connection).map_err(|error| fault("sync", &shared.path, &error))
    }

    fn copy_when_long(&self, shared: &Shared, writer: &Writer<'_>) {
        if self.long.load(Ordering::Relaxed)
            && let Err(error) = self.copy(shared, writer)
        {
            tracing::warn!(%error, "the projection's log could not be checkpointed");
        }
    }
}

/// Whether the log has become long, as SQLite tells after each transaction.
fn watch_log(connection: &mut Connection) -> rusqlite::Result<Arc<AtomicBool>> {
    let long = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&long);
    connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
        told.store(pages >= CHECKPOINT_PAGES, Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(long)
}

/// The thread: drains what waits, writes it, says how far it got.
fn keep_up(shared: &Shared, mut writer: Writer<'_>, log: &Log, reach: &watch::Sender<Revision>) {
    let mut drained: Vec<Arc<Commit>> = Vec::new();
    loop {
        if drained.is_empty() && is_idle(shared) {
            drained = Vec::new();
            writer.give_back();
        }
        let closed = take_waiting(shared, &mut drained);
        let written = if drained.is_empty() && !closed {
            write_skipped(shared, &mut writer)
        } else {
            let synced = shared.sync_journal();
            synced.and_then(|()| writer.write(&drained)).map(|()| drained.clear())
        };
        match written {
            Ok(()) => {
                log.mark.remember(writer.meta.revision.0);
                reach.send_replace(writer.meta.revision);
                if shared.trouble.send_if_modified(|trouble| trouble.take().is_some()) {
                    tracing::info!("the projection is written again");
                }
                log.copy_when_long(shared, &writer);
            }
            Err(error) => {
                if shared.trouble.borrow().is_none() {
                    tracing::error!(%error, "the projection could not be written, and is tried again");
                }
                let lost = matches!(error, StoreError::Corrupt { .. } | StoreError::Foreign { .. });
                refuse_checkpoints(shared, &error, lost);
                shared.trouble.send_replace(Some(error));
                // What was not written stays in the journal and is read from there at the next start.
                if lost || closed {
                    return;
                }
                shared.ready.wait_for(&mut shared.queue.lock(), RETRY);
            }
        }
        serve_checkpoints(shared, &writer, log);
        if closed && drained.is_empty() && shared.queue.lock().commits.is_empty() {
            return;
        }
    }
}

/// Writes some of what did not fit into the queue, if there is any.
fn write_skipped(shared: &Shared, writer: &mut Writer<'_>) -> Result<(), StoreError> {
    let Some(end) = shared.queue.lock().skipped_to else { return Ok(()) };
    if writer.meta.revision < end {
        let events = shared.journal.read(writer.meta.revision, READ_BACK)?;
        shared.sync_journal()?;
        writer.write(&[Arc::new(Commit { events, sync: true })])?;
    }
    let mut queue = shared.queue.lock();
    if queue.skipped_to.is_some_and(|end| end <= writer.meta.revision) {
        queue.skipped_to = None;
    }
    Ok(())
}

impl Queue {
    /// Until when the thread may sleep: `None` is for ever, a moment that has passed means that there is work.
    fn rest_until(&self, now: Instant) -> Option<Instant> {
        let asked = self.hurried || self.closed || !self.checkpoints.is_empty();
        if asked || self.events >= DRAIN_MAX || self.skipped_to.is_some() {
            return Some(now);
        }
        self.since.map(|since| since + LINGER)
    }
}

/// Waits a while for work; whether there is none.
fn is_idle(shared: &Shared) -> bool {
    let mut queue = shared.queue.lock();
    let until = Instant::now() + IDLE;
    while queue.rest_until(Instant::now()).is_none() {
        if shared.ready.wait_until(&mut queue, until).timed_out() {
            return queue.rest_until(until).is_none();
        }
    }
    false
}

/// Waits for work and moves about a drain of it over; says whether the handle has gone.
fn take_waiting(shared: &Shared, drained: &mut Vec<Arc<Commit>>) -> bool {
    let mut queue = shared.queue.lock();
    while drained.is_empty() {
        let now = Instant::now();
        match queue.rest_until(now) {
            Some(until) if until <= now => break,
            Some(until) => drop(shared.ready.wait_until(&mut queue, until)),
            None => shared.ready.wait(&mut queue),
        }
    }
    let mut events: usize = drained.iter().map(|commit| commit.events.len()).sum();
    while events < DRAIN_MAX
        && let Some((commit, bytes)) = queue.commits.pop_front()
    {
        events += commit.events.len();
        queue.events -= commit.events.len();
        queue.bytes -= bytes;
        drained.push(commit);
    }
    if queue.commits.is_empty() {
        queue.since = None;
        queue.hurried = false;
    }
    queue.closed
}

fn serve_checkpoints(shared: &Shared, writer: &Writer<'_>, log: &Log) {
    let reached = writer.meta.revision;
    let due: Vec<_> = shared.queue.lock().checkpoints.extract_if(.., |(wanted, _)| *wanted <= reached).collect();
    if due.is_empty() {
        return;
    }
    let answer = log.copy(shared, writer).map(|()| reached);
    for (_, reply) in due {
        // Whoever asked may have gone.
        let _ = reply.send(answer.clone());
    }
}

fn refuse_checkpoints(shared: &Shared, error: &StoreError, lost: bool) {
    let mut queue = shared.queue.lock();
    for (_, reply) in queue.checkpoints.drain(..) {
        let _ = reply.send(Err(error.clone()));
    }
    if lost {
        queue.failure = Some(error.clone());
        queue.commits.clear();
    }
}
