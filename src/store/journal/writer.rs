//! The transactions that write to the journal.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::checkpointer::Checkpointer;
use super::rows;
use super::schema::Bounds;
use super::state::JournalState;
use crate::store::error::StoreError;
use crate::store::sqlite::{checkpoint, sqlite_error};
use crate::store::traits::{AppendDone, Commit};

/// Maximum number of commits in one transaction.
const GROUP_MAX: usize = 4096;
/// Number of commits that one transaction deletes, so that trimming does not delay appends for long.
const TRIM_STEP: u32 = 64;
/// Bytes written between checkpoints.
const CHECKPOINT_BYTES: usize = 32 << 20;
/// About the bytes that a transaction writes in addition to its bodies: the pages that it changes.
const TRANSACTION_BYTES: usize = 8192;

pub(super) type QueuedCommit = (Arc<Commit>, AppendDone);

/// The journal's thread: writes all queued commits in one transaction.
pub(super) fn write_queued(writer: &Mutex<Writer>, queue: &Receiver<QueuedCommit>) {
    while let Ok(first) = queue.recv() {
        let group = iter::once(first).chain(queue.try_iter()).take(GROUP_MAX).collect();
        writer.lock().append_group(group);
    }
    writer.lock().store_bounds();
}

pub(super) struct Writer {
    connection: Connection,
    state: Arc<JournalState>,
    end: u64,
    /// Why the last transaction failed. Commits that follow a failed one fail with the same error.
    failure: Option<StoreError>,
    /// Whether transactions are synced at present (`PRAGMA synchronous = FULL`).
    synced: bool,
    bytes_since_checkpoint: usize,
    checkpointer: Checkpointer,
}

impl Writer {
    pub(super) fn new(connection: Connection, state: Arc<JournalState>, end: u64) -> Result<Self, StoreError> {
        let checkpointer = Checkpointer::start(&state)?;
        Ok(Self { connection, state, end, failure: None, synced: true, bytes_since_checkpoint: 0, checkpointer })
    }

    pub(super) fn append(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.check_order(commit, self.end)?;
        self.write(iter::once(commit), commit.last().0)?;
        self.checkpoint_if_due();
        Ok(())
    }

    pub(super) fn append_group(&mut self, group: Vec<QueuedCommit>) {
        let mut accepted = Vec::with_capacity(group.len());
        let mut end = self.end;
        for (commit, done) in group {
            match self.check_order(&commit, end) {
                Ok(()) => {
                    end = commit.last().0;
                    accepted.push((commit, done));
                }
                Err(error) => done(Err(error)),
            }
        }
        if accepted.is_empty() {
            return;
        }
        let result = self.write(accepted.iter().map(|(commit, _)| &**commit), end);
        for (_, done) in accepted {
            done(result.clone());
        }
        if result.is_ok() {
            self.checkpoint_if_due();
        }
    }

    /// A commit that does not follow `end` was sent after a failed one, or by mistake.
    fn check_order(&self, commit: &Commit, end: u64) -> Result<(), StoreError> {
        if commit.first().0 == end + 1 && commit.last().0 - end == commit.events.len() as u64 {
            return Ok(());
        }
        Err(self.failure.clone().unwrap_or_else(|| StoreError::Io {
            action: "append to",
            path: self.state.path.clone(),
            detail: format!("revision {} does not follow {end}; report this as a bug", commit.first()),
        }))
    }

    fn write<'a>(&mut self, commits: impl Iterator<Item = &'a Commit> + Clone, end: u64) -> Result<(), StoreError> {
        if let Err(error) = self.write_transaction(commits) {
            let error = sqlite_error("append to", &self.state.path, &error);
            self.failure = Some(error.clone());
            return Err(error);
        }
        self.end = end;
        self.failure = None;
        self.state.end.store(end, Ordering::Release);
        self.state.watermark.advance(end, self.synced);
        Ok(())
    }

    fn write_transaction<'a>(&mut self, commits: impl Iterator<Item = &'a Commit> + Clone) -> rusqlite::Result<()> {
        let sync = commits.clone().any(|commit| commit.sync) || !self.state.watermark.mark_unsynced();
        if sync != self.synced {
            // A later sync also covers transactions without one, because they share the log.
            self.connection.pragma_update(None, "synchronous", if sync { "FULL" } else { "NORMAL" })?;
            self.synced = sync;
        }
        let transaction = self.connection.transaction()?;
        for commit in commits {
            self.bytes_since_checkpoint += rows::insert(&transaction, &commit.events)?;
        }
        self.bytes_since_checkpoint += TRANSACTION_BYTES;
        transaction.commit()
    }

    /// Deletes some of the commits that end at `up_to` or before. Returns whether there are more.
    pub(super) fn trim(&mut self, up_to: u64) -> rusqlite::Result<bool> {
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
        let trimmed = last.cast_unsigned();
        Bounds { trimmed, end: self.end }.store(&transaction)?;
        transaction.commit()?;
        self.state.trimmed.store(trimmed, Ordering::Release);
        self.bytes_since_checkpoint += TRANSACTION_BYTES;
        Ok(ends.len() >= TRIM_STEP as usize)
    }

    /// Records at an orderly shutdown where the journal ends, so that a lost end is detected.
    fn store_bounds(&self) {
        let bounds = Bounds { trimmed: self.state.trimmed.load(Ordering::Acquire), end: self.end };
        if let Err(error) = bounds.store(&self.connection) {
            tracing::warn!(path = %self.state.path.display(), %error, "failed to record the end of the journal");
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.checkpointer.take_finished() {
            // This copies only what was written meanwhile; afterwards the log starts over.
            match checkpoint(&self.connection) {
                Ok(()) => self.bytes_since_checkpoint = 0,
                Err(error) => tracing::warn!(%error, "failed to checkpoint the journal's log"),
            }
        } else if self.bytes_since_checkpoint >= CHECKPOINT_BYTES {
            self.checkpointer.wake();
        }
    }

    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.pragma_update(None, "max_page_count", pages).unwrap();
    }
}
