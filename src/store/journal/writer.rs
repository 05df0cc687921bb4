//! The transactions that write to the journal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::{iter, mem};

use parking_lot::Mutex;
use rusqlite::{Connection, ffi, params};

use super::checkpointer::Checkpointer;
use super::lease;
use super::rows;
use super::schema::Bounds;
use super::state::JournalState;
use crate::model::Revision;
use crate::store::error::StoreError;
use crate::store::sqlite::sqlite_error;
use crate::store::traits::{AppendDone, AppendError, COMMIT_BYTES_MAX, Commit};

/// Number of commits that one transaction deletes, so that trimming does not delay appends for long.
const TRIM_STEP: u32 = 64;
/// Bytes written between checkpoints.
const CHECKPOINT_BYTES: usize = 32 << 20;
/// About the bytes that a transaction writes in addition to its bodies: the pages that it changes.
const TRANSACTION_BYTES: usize = 8192;

pub(super) type QueuedCommit = (Arc<Commit>, AppendDone);

/// The journal's thread: writes all queued commits in one transaction, as far as they fit into the bound of a commit.
pub(super) fn write_queued(writer: &Mutex<Writer>, queue: &Receiver<QueuedCommit>) {
    let mut next = queue.recv().ok();
    while let Some(first) = next {
        let mut bytes = first.0.bytes;
        let mut group = vec![first];
        next = queue.try_recv().ok();
        while let Some(queued) = next.take_if(|(commit, _)| bytes + commit.bytes <= COMMIT_BYTES_MAX) {
            bytes += queued.0.bytes;
            group.push(queued);
            next = queue.try_recv().ok();
        }
        writer.lock().append_group(group);
        next = next.or_else(|| queue.recv().ok());
    }
    writer.lock().store_bounds();
}

pub(super) struct Writer {
    connection: Connection,
    state: Arc<JournalState>,
    end: u64,
    epoch: u64,
    /// Why the last append failed. Commits that follow a failed one fail with the same error.
    failure: Option<AppendError>,
    /// Whether transactions are synced at present (`PRAGMA synchronous = FULL`).
    synced: bool,
    bytes_since_checkpoint: usize,
    checkpointer: Checkpointer,
    /// Memory for the bytes of commits. Memory that the system has just given would cost as much time as encoding.
    body: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        state: Arc<JournalState>,
        end: u64,
        epoch: u64,
    ) -> Result<Self, StoreError> {
        let checkpointer = Checkpointer::start(&state)?;
        let (failure, synced, bytes_since_checkpoint, body) = (None, true, 0, Vec::new());
        Ok(Self { connection, state, end, epoch, failure, synced, bytes_since_checkpoint, checkpointer, body })
    }

    pub(super) fn append(&mut self, commit: &Commit) -> Result<(), AppendError> {
        self.check_order(commit, self.end)?;
        self.write(iter::once(commit), commit.last().0)?;
        self.checkpoint_if_due();
        Ok(())
    }

    pub(super) fn append_group(&mut self, mut group: Vec<QueuedCommit>) {
        let mut end = self.end;
        let accepted = group.iter().take_while(|(commit, _)| {
            let follows = self.check_order(commit, end).is_ok();
            end = if follows { commit.last().0 } else { end };
            follows
        });
        let refused = group.split_off(accepted.count());
        if !group.is_empty() {
            let result = self.write(group.iter().map(|(commit, _)| &**commit), end);
            for (_, done) in group {
                done(result.clone());
            }
            if result.is_ok() {
                self.checkpoint_if_due();
            }
        }
        for (commit, done) in refused {
            done(self.append(&commit));
        }
    }

    /// A commit that does not follow `end` was sent after a failed one, or by mistake.
    fn check_order(&self, commit: &Commit, end: u64) -> Result<(), AppendError> {
        if commit.first().0 == end + 1 && commit.last().0 - end == commit.events.len() as u64 {
            return Ok(());
        }
        Err(self.failure.clone().unwrap_or_else(|| {
            AppendError::Refused(StoreError::Io {
                action: "append to",
                path: self.state.path.clone(),
                detail: format!("revision {} does not follow {end}; report this as a bug", commit.first()),
            })
        }))
    }

    fn write<'a>(&mut self, commits: impl Iterator<Item = &'a Commit> + Clone, end: u64) -> Result<(), AppendError> {
        let mut body = mem::take(&mut self.body);
        let written = self.set_sync(commits.clone()).and_then(|()| {
            self.transact("append to", |transaction| {
                commits.map(|commit| rows::insert(transaction, commit, &mut body)).sum::<rusqlite::Result<usize>>()
            })
        });
        body.shrink_to(COMMIT_BYTES_MAX);
        self.body = body;
        self.failure = written.as_ref().err().cloned();
        let bytes = written?;
        self.bytes_since_checkpoint += bytes;
        self.state.sizes.lock().add(Revision(end), bytes as u64);
        self.end = end;
        self.state.end.store(end, Ordering::Release);
        self.state.watermark.advance(end, self.synced);
        Ok(())
    }

    /// A later sync also covers transactions without one, because they share the log.
    fn set_sync<'a>(&mut self, mut commits: impl Iterator<Item = &'a Commit>) -> Result<(), AppendError> {
        let sync = commits.any(|commit| commit.sync) || !self.state.watermark.mark_unsynced();
        if sync != self.synced {
            let changed = self.connection.pragma_update(None, "synchronous", if sync { "FULL" } else { "NORMAL" });
            changed.map_err(|error| AppendError::Refused(sqlite_error("append to", &self.state.path, &error)))?;
            self.synced = sync;
        }
        Ok(())
    }

    /// Runs a transaction while this opening has the lease, and no other after a final failure.
    fn transact<T>(
        &mut self,
        action: &'static str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, AppendError> {
        if let Some(failure) = self.final_failure() {
            return Err(failure.clone());
        }
        let result = self.try_transact(action, run);
        if let Err(error) = &result
            && error.is_final()
        {
            self.failure = Some(error.clone());
            if matches!(error, AppendError::Unknown(_)) {
                self.state.watermark.mark_sync_failed();
            }
        }
        result
    }

    fn final_failure(&self) -> Option<&AppendError> {
        self.failure.as_ref().filter(|failure| failure.is_final())
    }

    fn try_transact<T>(
        &mut self,
        action: &'static str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, AppendError> {
        let path = &self.state.path;
        let failed = |error| outcome_before_commit(sqlite_error(action, path, &error));
        let transaction = self.connection.transaction().map_err(failed)?;
        let value = run(&transaction).map_err(failed)?;
        // After the first change, which locks the file: the lease stays as it is until the commit.
        let owner = lease::load(&transaction, path).map_err(outcome_before_commit)?;
        if owner != self.epoch {
            return Err(AppendError::Fenced(StoreError::Fenced { path: path.clone(), epoch: self.epoch, owner }));
        }
        transaction.commit().map_err(|error| outcome_of_commit(path, &error))?;
        self.bytes_since_checkpoint += TRANSACTION_BYTES;
        Ok(value)
    }

    /// Deletes some of the commits that end at `up_to` or before. Returns whether there are more.
    pub(super) fn trim(&mut self, up_to: u64) -> Result<bool, StoreError> {
        let end = self.end;
        let trimmed = self.transact("trim", |transaction| {
            let ends: Vec<i64> = transaction
                .prepare_cached(
                    "SELECT first + count - 1 FROM commits WHERE first <= ?1 AND first + count - 1 <= ?1
                     ORDER BY first LIMIT ?2",
                )?
                .query_map(params![up_to.cast_signed(), TRIM_STEP], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let Some(last) = ends.last() else { return Ok(None) };
            transaction.execute("DELETE FROM commits WHERE first <= ?1", [last])?;
            let trimmed = last.cast_unsigned();
            Bounds { trimmed, end }.store(transaction)?;
            Ok(Some((trimmed, ends.len() >= TRIM_STEP as usize)))
        });
        let Some((trimmed, more)) = trimmed? else { return Ok(false) };
        self.state.trimmed.store(trimmed, Ordering::Release);
        self.state.sizes.lock().trim(Revision(trimmed));
        Ok(more)
    }

    /// Records at an orderly shutdown where the journal ends, so that a lost end is detected.
    fn store_bounds(&self) {
        if self.final_failure().is_some() {
            return;
        }
        let bounds = Bounds { trimmed: self.state.trimmed.load(Ordering::Acquire), end: self.end };
        if let Err(error) = bounds.store(&self.connection) {
            tracing::warn!(path = %self.state.path.display(), %error, "failed to record the end of the journal");
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.checkpointer.take_finished() {
            // This copies only what was written meanwhile; afterwards the log starts over.
            if self.state.checkpoint(&self.connection) {
                self.bytes_since_checkpoint = 0;
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

/// Without the end of the transaction in the log, nothing of it counts. But a failed sync also concerns the commits
/// before it.
fn outcome_before_commit(error: StoreError) -> AppendError {
    match error {
        StoreError::SyncFailed { .. } => AppendError::Unknown(error),
        error => AppendError::Refused(error),
    }
}

/// SQLite first writes the log, whose last frame completes the transaction, then syncs it, and then changes its index.
/// If it fails after the write, it undoes the transaction in memory, but a restart finds it in the log. If the sync has
/// failed, the disk may lack any part of the log that was written since the last sync, although reads still return it
/// and the next sync succeeds (Linux drops the changes of pages that it could not write).
fn outcome_of_commit(path: &Path, error: &rusqlite::Error) -> AppendError {
    let cause = sqlite_error("append to", path, error);
    let code = error.sqlite_error().map(|error| error.extended_code);
    if matches!(code, Some(ffi::SQLITE_FULL | ffi::SQLITE_BUSY | ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_READ)) {
        AppendError::Refused(cause)
    } else {
        AppendError::Unknown(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_before_the_end_of_a_transaction_is_written_is_a_refusal() {
        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let path = Path::new("some/journal.db");
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_READ] {
            assert!(!outcome_of_commit(path, &failure(code)).is_final(), "{code}");
            assert!(!outcome_before_commit(sqlite_error("append to", path, &failure(code))).is_final(), "{code}");
        }
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_NOMEM] {
            assert!(matches!(outcome_of_commit(path, &failure(code)), AppendError::Unknown(_)), "{code}");
        }
        // The start of a log is synced before the first transaction in it is complete.
        let error = outcome_before_commit(sqlite_error("append to", path, &failure(ffi::SQLITE_IOERR_FSYNC)));
        assert!(matches!(&error, AppendError::Unknown(StoreError::SyncFailed { .. })), "{error}");
        assert!(error.to_string().contains("some/journal.db"), "{error}");
    }
}
