//! The journal in SQLite: one row per commit, one transaction and one sync for all that wait.
//!
//! A thread of its own writes, except where a caller waits for it anyway. Checkpoints run on another
//! thread beside it; the writer only does the small rest of one, so that the write-ahead log can start over.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::mark::{Known, Mark};
use super::record::{commit_checksum, decode_commit, encode_commit};
use super::sqlite::{Readers, Schema, checkpoint, fault, keep_log, open_writer};
use super::{Commit, Done, Journal, KeptPool, StoreError, journal_check, pools, wal};
use crate::model::{Event, Revision};

pub(super) const SCHEMA: Schema = Schema {
    application_id: 0x4c53_4a31,
    migrations: &[
        "CREATE TABLE commits(
            first INTEGER PRIMARY KEY,
            count INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            body BLOB NOT NULL
        );
        CREATE TABLE meta(
            id INTEGER PRIMARY KEY,
            trimmed INTEGER NOT NULL,
            end INTEGER NOT NULL,
            checksum INTEGER NOT NULL
        );
        INSERT INTO meta VALUES (1, 0, 0, 0);",
        pools::TABLE,
    ],
};
/// Commits of one transaction.
const GROUP_MAX: usize = 4096;
/// Commits that one transaction forgets, so that trimming does not hold appends up for long.
const TRIM_STEP: u32 = 64;
/// Bytes written between checkpoints.
const CHECKPOINT_BYTES: usize = 32 << 20;
/// Bytes that the log has from the beginning: those between checkpoints, and what is written during one.
const LOG_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 40 << 20 };
/// Niceness of threads that work behind the scenes. They still get a fifth of a core that others keep busy.
const BACKGROUND_NICENESS: i32 = 6;
/// Bytes after which a read is enough for now.
const READ_BYTES_MAX: usize = 32 << 20;
/// Bytes that a transaction costs beside its bodies, about: the pages it touches.
const TRANSACTION_BYTES: usize = 8192;

/// The file `journal.db`.
pub struct SqliteJournal {
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    writer: Arc<Mutex<Writer>>,
    pools: Vec<KeptPool>,
    readers: Readers,
    shared: Arc<Shared>,
}

/// What the thread and the handle both look at.
struct Shared {
    path: PathBuf,
    /// Revisions up to here are forgotten.
    trimmed: AtomicU64,
    /// The last durable revision.
    end: AtomicU64,
    mark: Mark,
    _lock: Option<Arc<File>>,
}

enum Message {
    Append(Arc<Commit>, Done),
    /// Forgets one step; answers whether there is more.
    Trim(Revision, SyncSender<Result<bool, StoreError>>),
    #[cfg(test)]
    PagesMax(u32, SyncSender<()>),
}

impl SqliteJournal {
    /// Opens or creates the file, verifies every commit in it, and starts the thread.
    ///
    /// # Errors
    /// Any of [`StoreError`]; a damaged commit is named.
    pub fn open(path: &Path, lock: Option<Arc<File>>) -> Result<Self, StoreError> {
        let known = Known::read(path)?;
        wal::check(path, known.loose)?;
        let connection = open_writer(path, &SCHEMA)?;
        let settings = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;";
        connection.execute_batch(settings).map_err(|error| fault("open", path, &error))?;
        let (trimmed, end) = journal_check::verify(&connection, path)?;
        known.check(path, end)?;
        let pools = pools::load(&connection, path)?;
        keep_log(&connection, false).map_err(|error| fault("open", path, &error))?;
        let mark = Mark::begin(path, end, known)?;
        prepare_log(path);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            trimmed: AtomicU64::new(trimmed),
            end: AtomicU64::new(end),
            mark,
            _lock: lock,
        });
        let (messages, inbox) = channel();
        let writer = Arc::new(Mutex::new(Writer::new(connection, Arc::clone(&shared), end)?));
        let written = Arc::clone(&writer);
        let thread = spawn("journal", path, move || run(&written, &inbox))?;
        Ok(Self { messages: Some(messages), thread: Some(thread), writer, pools, readers: Readers::new(path), shared })
    }

    /// Pools that had been changed when the file was opened.
    pub(super) fn pools(&self) -> &[KeptPool] {
        &self.pools
    }

    /// What the projection syncs before it takes commits that were not.
    pub(super) fn mark(&self) -> &Mark {
        &self.shared.mark
    }

    /// The last durable revision.
    pub fn end(&self) -> Revision {
        Revision(self.shared.end.load(Ordering::Acquire))
    }

    /// Lets the file grow to so many pages only, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        let (reply, answer) = sync_channel(1);
        self.messages.as_ref().unwrap().send(Message::PagesMax(pages, reply)).unwrap();
        answer.recv().unwrap();
    }
}

/// Fills the write-ahead log up with zeros, before the first append. A commit that overwrites what the
/// file has already is synced in two thirds of the time, because the file's size does not change.
/// Zeros are no frame: recovery stops at them as at the end of the file.
fn prepare_log(path: &Path) {
    let log = wal::log_of(path);
    let Ok(mut file) = OpenOptions::new().write(true).open(&log) else { return };
    let Ok(length) = file.seek(SeekFrom::End(0)) else { return };
    let zeros = vec![0; 1 << 16];
    let steps = LOG_BYTES.saturating_sub(length).div_ceil(zeros.len() as u64);
    let filled = (0..steps).try_for_each(|_| file.write_all(&zeros)).and_then(|()| file.sync_data());
    if let Err(error) = filled {
        tracing::info!(path = %log.display(), %error, "no room to prepare the log; writing is slower");
        // What cannot be given back is overwritten in time.
        let _ = file.set_len(length);
    }
}

/// Starts a named thread.
pub(super) fn spawn(
    name: &str,
    path: &Path,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(|error| StoreError::Io {
        action: "start a thread for",
        path: path.to_owned(),
        detail: format!("{error}; raise the limit of threads"),
    })
}

/// Lets threads that somebody waits for go before this one, where all cores are busy.
pub(super) fn step_back() {
    // A system that does not allow it is slower under load and otherwise the same.
    let _ = rustix::process::setpriority_process(None, BACKGROUND_NICENESS);
}

impl Journal for SqliteJournal {
    fn append(&self, commit: Arc<Commit>, done: Done) {
        let Some(messages) = &self.messages else { return done(Err(StoreError::Closed)) };
        if let Err(refused) = messages.send(Message::Append(commit, done))
            && let Message::Append(_, done) = refused.0
        {
            done(Err(StoreError::Closed));
        }
    }

    /// On the caller's own thread, which saves two hand-overs.
    fn append_now(&self, commit: Arc<Commit>) -> Result<(), StoreError> {
        let (sender, answer) = sync_channel(1);
        // The receiver is there until it has the answer.
        self.writer.lock().append(vec![(commit, Box::new(move |result| drop(sender.send(result))))]);
        answer.recv().map_err(|_| StoreError::Closed)?
    }

    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError> {
        let end = self.end();
        if after < self.oldest() {
            return Err(StoreError::Compacted { oldest: self.oldest() });
        }
        if after >= end {
            return Ok(Vec::new());
        }
        let found = self.readers.with(|connection| read(connection, &self.shared.path, after, limit));
        // A trim may have come in between; then the gap is none.
        if after < self.oldest() { Err(StoreError::Compacted { oldest: self.oldest() }) } else { found }
    }

    fn keep_pool(&self, kept: &KeptPool) -> Result<(), StoreError> {
        let stored = self.writer.lock().keep_pool(kept);
        stored.map_err(|error| fault("write to", &self.shared.path, &error))
    }

    fn oldest(&self) -> Revision {
        Revision(self.shared.trimmed.load(Ordering::Acquire))
    }

    fn trim(&self, up_to: Revision) -> Result<(), StoreError> {
        let messages = self.messages.as_ref().ok_or(StoreError::Closed)?;
        loop {
            let (reply, answer) = sync_channel(1);
            messages.send(Message::Trim(up_to, reply)).map_err(|_| StoreError::Closed)?;
            if !answer.recv().map_err(|_| StoreError::Closed)?? {
                return Ok(());
            }
        }
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Whole commits after `after`, about `limit` events.
fn read(connection: &Connection, path: &Path, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError> {
    let fault = |error| fault("read", path, &error);
    let sql = "SELECT first, count, checksum, body FROM commits
        WHERE first >= (SELECT max(first) FROM commits WHERE first <= ?1) ORDER BY first";
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let mut rows = statement.query([after.0.wrapping_add(1).cast_signed()]).map_err(fault)?;
    let mut events = Vec::new();
    let (mut expected, mut bytes) = (None, 0);
    while events.len() < limit.max(1)
        && bytes < READ_BYTES_MAX
        && let Some(row) = rows.next().map_err(fault)?
    {
        let commit = journal_check::row(row, path)?;
        if expected.is_some_and(|expected| expected != commit.first) {
            return Err(commit.corrupt(path, format!("revision {} should follow", expected.unwrap_or_default())));
        }
        let decoded = decode_commit(Revision(commit.first), commit.body)
            .map_err(|damage| commit.corrupt(path, damage.to_string()))?;
        if decoded.len() as u64 != commit.count {
            return Err(commit.corrupt(path, format!("{} events instead of {}", decoded.len(), commit.count)));
        }
        expected = Some(commit.first + commit.count);
        bytes += commit.body.len();
        events.extend(decoded.into_iter().filter(|event| event.revision > after));
    }
    match events.first() {
        Some(first) if first.revision == after.next() => Ok(events),
        _ => Err(journal_check::missing(path, after.next())),
    }
}

/// The thread: takes all that waits into one transaction.
fn run(writer: &Mutex<Writer>, inbox: &Receiver<Message>) {
    while let Ok(message) = inbox.recv() {
        let mut appends = Vec::new();
        let mut others = Vec::new();
        let waiting = std::iter::once(message).chain(inbox.try_iter());
        for message in waiting.take(GROUP_MAX) {
            match message {
                Message::Append(commit, done) => appends.push((commit, done)),
                other @ Message::Trim(..) => others.push(other),
                #[cfg(test)]
                other @ Message::PagesMax(..) => others.push(other),
            }
        }
        let mut writer = writer.lock();
        if !appends.is_empty() {
            writer.append(appends);
        }
        for other in others {
            writer.serve(other);
        }
    }
    writer.lock().note_end();
}

/// The writing connection and where the journal ends.
struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    end: u64,
    /// Why the last transaction failed; what was sent after it, fails likewise.
    failure: Option<StoreError>,
    synced: bool,
    unchecked_bytes: usize,
    checkpointer: Checkpointer,
}

impl Writer {
    fn new(connection: Connection, shared: Arc<Shared>, end: u64) -> Result<Self, StoreError> {
        let checkpointer = Checkpointer::start(&shared)?;
        Ok(Self { connection, shared, end, failure: None, synced: true, unchecked_bytes: 0, checkpointer })
    }

    /// At an orderly end.
    fn note_end(&self) {
        let noted = note_ends(&self.connection, self.shared.trimmed.load(Ordering::Acquire), self.end);
        if let Err(error) = noted {
            tracing::warn!(path = %self.shared.path.display(), %error, "the journal's end could not be noted");
        }
    }

    fn serve(&mut self, message: Message) {
        match message {
            Message::Append(..) => {}
            Message::Trim(up_to, reply) => {
                let answer = self.trim(up_to.0).map_err(|error| fault("trim", &self.shared.path, &error));
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            #[cfg(test)]
            Message::PagesMax(pages, reply) => {
                self.connection.pragma_update(None, "max_page_count", pages).unwrap();
                reply.send(()).unwrap();
            }
        }
    }

    fn append(&mut self, appends: Vec<(Arc<Commit>, Done)>) {
        let mut accepted = Vec::with_capacity(appends.len());
        let mut end = self.end;
        for (commit, done) in appends {
            let follows = commit.first().0 == end + 1 && commit.last().0 - end == commit.events.len() as u64;
            if follows {
                end = commit.last().0;
                accepted.push((commit, done));
            } else {
                done(Err(self.out_of_order(&commit, end)));
            }
        }
        if accepted.is_empty() {
            return;
        }
        match self.write(&accepted) {
            Ok(()) => {
                self.end = end;
                self.failure = None;
                self.shared.end.store(end, Ordering::Release);
                self.shared.mark.note(end, self.synced);
                for (_, done) in accepted {
                    done(Ok(()));
                }
                self.checkpoint_when_due();
            }
            Err(error) => {
                let error = fault("append to", &self.shared.path, &error);
                self.failure = Some(error.clone());
                for (_, done) in accepted {
                    done(Err(error.clone()));
                }
            }
        }
    }

    /// A commit that does not follow was sent behind one that failed, or by mistake.
    fn out_of_order(&self, commit: &Commit, end: u64) -> StoreError {
        self.failure.clone().unwrap_or_else(|| StoreError::Io {
            action: "append to",
            path: self.shared.path.clone(),
            detail: format!("revision {} does not follow {end}; report this", commit.first()),
        })
    }

    fn write(&mut self, commits: &[(Arc<Commit>, Done)]) -> rusqlite::Result<()> {
        let sync = commits.iter().any(|(commit, _)| commit.sync) || !self.shared.mark.loosen();
        if sync != self.synced {
            // A later sync covers what was written without one: they share the log.
            self.connection.pragma_update(None, "synchronous", if sync { "FULL" } else { "NORMAL" })?;
            self.synced = sync;
        }
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO commits VALUES (?1, ?2, ?3, ?4)")?;
            for (commit, _) in commits {
                let (first, count) = (commit.first().0, commit.events.len() as u64);
                let body = encode_commit(&commit.events);
                let checksum = commit_checksum(first, count, &body);
                insert.execute(params![first.cast_signed(), count.cast_signed(), checksum, body])?;
                self.unchecked_bytes += body.len();
            }
        }
        self.unchecked_bytes += TRANSACTION_BYTES;
        transaction.commit()
    }

    fn keep_pool(&mut self, kept: &KeptPool) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        self.synced = true;
        self.unchecked_bytes += TRANSACTION_BYTES;
        kept.store(&self.connection)
    }

    /// Forgets some of the commits that end at `up_to` or before; says whether there are more.
    fn trim(&mut self, up_to: u64) -> rusqlite::Result<bool> {
        let transaction = self.connection.transaction()?;
        let ends: Vec<i64> = transaction
            .prepare_cached(
                "SELECT first + count - 1 FROM commits WHERE first <= ?1 AND first + count - 1 <= ?1
                 ORDER BY first LIMIT ?2",
            )?
            .query_map(params![up_to.cast_signed(), TRIM_STEP], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let Some(last) = ends.last() else { return Ok(false) };
        transaction.execute("DELETE FROM commits WHERE first <= ?1", [last])?;
        note_ends(&transaction, last.cast_unsigned(), self.end)?;
        transaction.commit()?;
        self.shared.trimmed.store(last.cast_unsigned(), Ordering::Release);
        self.unchecked_bytes += TRANSACTION_BYTES;
        Ok(ends.len() >= TRIM_STEP as usize)
    }

    fn checkpoint_when_due(&mut self) {
        if self.checkpointer.finished.swap(false, Ordering::AcqRel) {
            // Only what came in meanwhile is left; with it done, the log begins anew.
            match checkpoint(&self.connection) {
                Ok(()) => self.unchecked_bytes = 0,
                Err(error) => tracing::warn!(%error, "the journal's log could not be checkpointed"),
            }
        } else if self.unchecked_bytes >= CHECKPOINT_BYTES {
            self.checkpointer.wake();
        }
    }
}

/// Writes down what of the journal is there, so that a lost end is noticed.
fn note_ends(connection: &Connection, trimmed: u64, end: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES (1, ?1, ?2, ?3)")?;
    let checksum = journal_check::ends_checksum(trimmed, end);
    statement.execute(params![trimmed.cast_signed(), end.cast_signed(), checksum]).map(|_| ())
}

/// The thread that does the long part of checkpoints beside the writer.
struct Checkpointer {
    wake: Option<SyncSender<()>>,
    finished: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    fn start(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let path = &shared.path;
        let connection = open_writer(path, &SCHEMA)?;
        keep_log(&connection, false).map_err(|error| fault("open", path, &error))?;
        let (wake, woken) = sync_channel::<()>(1);
        let finished = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&finished);
        let shared = Arc::clone(shared);
        let thread = spawn("journal-sync", path, move || {
            step_back();
            while woken.recv().is_ok() {
                if let Err(error) = shared.mark.settle() {
                    tracing::warn!(%error, "the journal's log could not be synced");
                    continue;
                }
                match checkpoint(&connection) {
                    Ok(()) => told.store(true, Ordering::Release),
                    Err(error) => tracing::warn!(%error, "the journal's log could not be checkpointed"),
                }
            }
        })?;
        Ok(Self { wake: Some(wake), finished, thread: Some(thread) })
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full means that it is at work already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
