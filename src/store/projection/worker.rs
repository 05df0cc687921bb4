//! The thread that writes the projection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::hooks::Wal;
use tokio::sync::watch;

use super::queue::{CommitQueue, Next};
use super::submission_times::SubmissionTimes;
use super::writer::Writer;
use crate::model::Revision;
use crate::store::error::StoreError;
use crate::store::sqlite::{Released, checkpoint, release_free_pages, sqlite_error};
use crate::store::traits::{Commit, Journal};
use crate::store::watermark::Watermark;

/// Events read back from the journal at a time.
const READ_BACK_EVENTS: usize = if cfg!(test) { 16 } else { 50_000 };
/// Delay between attempts to write after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Pages in the write-ahead log after which they are copied into the file: 32 MiB.
const CHECKPOINT_PAGES: i32 = 8192;

/// Delay between two steps that return free space while there is nothing to write. With free pages in random order a step
/// finds them by a search of them all.
const SHRINK_PAUSE: Duration = Duration::from_millis(90);

/// What the handle and the thread share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) queue: CommitQueue,
    /// Why the last transaction failed.
    pub(super) fault: watch::Sender<Option<StoreError>>,
    pub(super) submission_times: Arc<Mutex<SubmissionTimes>>,
    /// Has the commits that did not fit into the queue.
    pub(super) journal: Arc<dyn Journal>,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    writer: Writer,
    watermark: Watermark,
    /// The last revision that is written. Receivers learn from its drop that the thread has ended.
    written: watch::Sender<Revision>,
    /// Set by SQLite after a transaction when the log has become long.
    wal_is_long: Arc<AtomicBool>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        mut writer: Writer,
        watermark: Watermark,
        written: watch::Sender<Revision>,
    ) -> rusqlite::Result<Self> {
        let wal_is_long = Arc::new(AtomicBool::new(false));
        let is_long = Arc::clone(&wal_is_long);
        writer.connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            is_long.store(pages >= CHECKPOINT_PAGES, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { shared, writer, watermark, written, wal_is_long })
    }

    /// Returns when the queue is closed, or when the file is corrupt.
    pub(super) fn run(mut self) {
        let mut group: Vec<Arc<Commit>> = Vec::new();
        loop {
            if group.is_empty() && self.shared.queue.wait_until_idle() {
                group = Vec::new();
                self.shrink_while_idle();
                self.writer.release_memory();
            }
            let next = self.shared.queue.take(&mut group);
            let is_last = matches!(next, Next::End);
            let written = match next {
                Next::Gap(end) if group.is_empty() => self.write_gap(end),
                _ => self.write(&group),
            };
            match written {
                Ok(()) => {
                    group.clear();
                    self.shared.queue.release_taken();
                    self.report_success();
                    self.shrink();
                }
                Err(error) => {
                    let is_damage = error.is_damage();
                    self.report_failure(error);
                    // The next start reads from the journal what was not written.
                    if is_damage || is_last {
                        return;
                    }
                    self.shared.queue.wait(RETRY_DELAY);
                }
            }
            self.serve_checkpoints();
            if is_last {
                return;
            }
        }
    }

    fn write(&mut self, commits: &[Arc<Commit>]) -> Result<(), StoreError> {
        self.add(commits)?;
        self.writer.store()
    }

    /// Writes the commits up to `end` that did not fit into memory.
    fn write_gap(&mut self, end: Revision) -> Result<(), StoreError> {
        while self.writer.folded() < end {
            let events = self.shared.journal.read(self.writer.folded(), READ_BACK_EVENTS)?;
            if events.is_empty() {
                let detail = format!("the journal ends at revision {}, before {end}", self.writer.folded());
                return Err(StoreError::corrupt(&self.shared.path, "table tasks", detail));
            }
            self.add(&[Arc::new(Commit::new(events, true))])?;
        }
        self.writer.store()
    }

    /// Folds the commits, and writes what has become too much for one transaction.
    fn add(&mut self, commits: &[Arc<Commit>]) -> Result<(), StoreError> {
        // SQLite may sync the projection at any time, and the projection must never be ahead of the journal.
        self.shared.journal.sync()?;
        for commit in commits {
            self.writer.add(commit)?;
            if self.writer.is_full() {
                self.writer.store()?;
                self.report_success();
            }
        }
        self.writer.end_reads()
    }

    fn report_success(&self) {
        let revision = self.writer.meta.revision;
        self.watermark.set_written(revision.0);
        // First, so that who waits for the tables does not find what they have overtaken.
        self.shared.queue.set_written(revision);
        self.written.send_replace(revision);
        if self.shared.fault.send_if_modified(|fault| fault.take().is_some()) {
            tracing::info!("writing the projection succeeds again");
        }
        if let Err(error) = self.checkpoint_if_long() {
            tracing::warn!(%error, "failed to checkpoint the projection's log");
        }
    }

    fn checkpoint_if_long(&self) -> Result<(), StoreError> {
        if self.wal_is_long.load(Ordering::Relaxed) { self.checkpoint() } else { Ok(()) }
    }

    /// Returns some free space to the file system.
    fn shrink(&self) -> Released {
        let released = release_free_pages(&self.writer.connection);
        let released = released.map_err(|error| sqlite_error("shrink", &self.shared.path, &error));
        released.and_then(|released| self.checkpoint_if_long().map(|()| released)).unwrap_or_else(|error| {
            self.watermark.exit_if_sync_failed(&error);
            tracing::warn!(%error, "failed to return free space of the projection");
            Released::default()
        })
    }

    fn shrink_while_idle(&self) {
        let mut released = self.shrink();
        let any = released.any;
        while released.more {
            self.shared.queue.wait(SHRINK_PAUSE);
            if !self.shared.queue.is_idle() {
                break;
            }
            released = self.shrink();
        }
        if any && let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "failed to checkpoint the projection's log");
        }
    }

    fn report_failure(&self, error: StoreError) {
        self.watermark.exit_if_sync_failed(&error);
        if error.is_damage() {
            tracing::error!(%error, "the projection is damaged; queries fail until the server is started again");
        } else if self.shared.fault.borrow().is_none() {
            tracing::error!(%error, "failed to write the projection; retrying");
        }
        self.shared.queue.fail(&error);
        self.shared.fault.send_replace(Some(error));
    }

    fn serve_checkpoints(&self) {
        let revision = self.writer.meta.revision;
        let replies = self.shared.queue.take_checkpoints(revision);
        if replies.is_empty() {
            return;
        }
        let result = self.checkpoint().map(|()| revision);
        for reply in replies {
            let _ = reply.send(result.clone());
        }
    }

    /// Makes everything written durable, and copies it from the log into the file, as far as readers allow.
    fn checkpoint(&self) -> Result<(), StoreError> {
        self.watermark.sync()?;
        let done = checkpoint(&self.writer.connection);
        let done = done.map_err(|error| sqlite_error("checkpoint", &self.shared.path, &error));
        done.inspect_err(|error| self.watermark.exit_if_sync_failed(error))
    }
}
