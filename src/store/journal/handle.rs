//! The handle of the journal.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use parking_lot::{Mutex, MutexGuard};

use super::identity;
use super::lease;
use super::pool_table;
use super::rows;
use super::schema::{Bounds, SCHEMA};
use super::state::JournalState;
use super::writer::{QueuedCommit, Writer, write_queued};
use crate::model::{Event, Revision, StoreId};
use crate::store::error::StoreError;
use crate::store::paths::wal_path;
use crate::store::sqlite::{Readers, keep_wal_on_close, open_writer, sqlite_error, verify_structure};
use crate::store::threads::OwnedThread;
use crate::store::traits::{AppendDone, AppendError, Commit, Journal};
use crate::store::wal_check;
use crate::store::watermark::{Watermark, WatermarkRecord};

/// Initial size of the write-ahead log: the bytes between two checkpoints, plus what is written during one.
const WAL_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 40 << 20 };

// The queue's sender is dropped before the thread is joined.
pub struct SqliteJournal {
    queue: Sender<QueuedCommit>,
    _thread: OwnedThread,
    writer: Arc<Mutex<Writer>>,
    was_closed: bool,
    store_id: StoreId,
    epoch: u64,
    readers: Readers,
    state: Arc<JournalState>,
}

impl SqliteJournal {
    /// Opens or creates the file, verifies every commit in it, and starts the threads.
    pub fn open(path: &Path, lock: Option<Arc<File>>) -> Result<Self, StoreError> {
        let watermark = WatermarkRecord::read(path)?;
        wal_check::check(path, watermark.unsynced)?;
        let mut connection = open_writer(path, &SCHEMA)?;
        let settings = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;";
        connection.execute_batch(settings).map_err(|error| sqlite_error("open", path, &error))?;
        verify_structure(&connection, path, &SCHEMA)?;
        let (Bounds { trimmed, end }, sizes) = rows::verify(&connection, path, |_| {})?;
        let was_closed = Bounds::load(&connection, path)?.end == end;
        watermark.check(path, end)?;
        let store_id = identity::load_or_create(&connection, path)?;
        let end = pool_table::convert(&mut connection, path, end)?;
        let epoch = lease::take(&connection, path)?;
        keep_wal_on_close(&connection, false).map_err(|error| sqlite_error("open", path, &error))?;
        let watermark = Watermark::create(path, end, watermark)?;
        preallocate_wal(path);
        let state = Arc::new(JournalState {
            path: path.to_owned(),
            trimmed: AtomicU64::new(trimmed),
            end: AtomicU64::new(end),
            sizes: Mutex::new(sizes),
            watermark,
            _lock: lock,
        });
        let writer = Arc::new(Mutex::new(Writer::new(connection, Arc::clone(&state), end, epoch)?));
        let (queue, queued) = channel();
        let thread_writer = Arc::clone(&writer);
        let thread = OwnedThread::spawn("journal", path, move || write_queued(&thread_writer, &queued))?;
        let readers = Readers::new(path);
        Ok(Self { queue, _thread: thread, writer, was_closed, store_id, epoch, readers, state })
    }

    /// Whether the previous owner closed the journal in order. May be true after a crash that followed a trim.
    pub fn was_closed(&self) -> bool {
        self.was_closed
    }

    /// The last durable revision.
    pub fn end(&self) -> Revision {
        Revision(self.state.end.load(Ordering::Acquire))
    }

    /// Limits the size of the file, to simulate a full disk.
    #[cfg(test)]
    pub fn limit_pages(&self, pages: u32) {
        self.writer.lock().limit_pages(pages);
    }
}

/// Extends the write-ahead log with zeros before the first append. A commit that overwrites existing bytes is synced
/// in two thirds of the time, because the size of the file does not change. SQLite's recovery stops at zeros as at the
/// end of the file.
fn preallocate_wal(path: &Path) {
    let wal = wal_path(path);
    let Ok(mut file) = OpenOptions::new().write(true).open(&wal) else { return };
    let Ok(length) = file.seek(SeekFrom::End(0)) else { return };
    let zeros = vec![0; 1 << 16];
    let steps = WAL_BYTES.saturating_sub(length).div_ceil(zeros.len() as u64);
    let extended = (0..steps).try_for_each(|_| file.write_all(&zeros)).and_then(|()| file.sync_data());
    if let Err(error) = extended {
        tracing::info!(path = %wal.display(), %error, "failed to preallocate the journal's log; writes will be slower");
        // If this fails too, later commits overwrite the zeros.
        let _ = file.set_len(length);
    }
}

impl Journal for SqliteJournal {
    fn append(&self, commit: &Arc<Commit>) -> Result<(), AppendError> {
        self.writer.lock().append(commit)
    }

    fn append_in_background(&self, commit: Arc<Commit>, done: AppendDone) {
        if let Err(refused) = self.queue.send((commit, done)) {
            let (_, done) = refused.0;
            done(Err(AppendError::Refused(StoreError::Closed)));
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn store_id(&self) -> StoreId {
        self.store_id
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.state.watermark.sync_wal_if_behind()
    }

    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError> {
        let compacted = || StoreError::Compacted { oldest: self.oldest() };
        if after < self.oldest() {
            return Err(compacted());
        }
        if after >= self.end() {
            return Ok(Vec::new());
        }
        let events = self.readers.with(|connection| rows::read(connection, &self.state.path, after, limit));
        // A trim during the read looks like a missing commit.
        if after < self.oldest() { Err(compacted()) } else { events }
    }

    fn oldest(&self) -> Revision {
        Revision(self.state.trimmed.load(Ordering::Acquire))
    }

    fn excess(&self, bytes: u64) -> Option<Revision> {
        self.state.sizes.lock().excess(bytes)
    }

    fn trim(&self, up_to: Revision) -> Result<(), StoreError> {
        loop {
            let mut writer = self.writer.lock();
            let more = writer.trim(up_to.0)?;
            // Let waiting appends run between two steps.
            MutexGuard::unlock_fair(writer);
            if !more {
                return Ok(());
            }
        }
    }
}
