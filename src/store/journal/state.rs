//! What the journal's handle and its threads share.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::store::journal_sizes::JournalSizes;
use crate::store::sqlite::{checkpoint, sqlite_error};
use crate::store::watermark::Watermark;

pub(super) struct JournalState {
    pub(super) path: PathBuf,
    /// Revisions up to here are deleted.
    pub(super) trimmed: AtomicU64,
    /// The last durable revision.
    pub(super) end: AtomicU64,
    pub(super) sizes: Mutex<JournalSizes>,
    pub(super) watermark: Watermark,
    /// Keeps other servers out of the directory while any thread of the journal runs.
    pub(super) _lock: Option<Arc<File>>,
}

impl JournalState {
    /// Copies the log into the file, as far as readers allow. Returns whether that succeeded.
    pub(super) fn checkpoint(&self, connection: &Connection) -> bool {
        let done = checkpoint(connection).map_err(|error| sqlite_error("checkpoint", &self.path, &error));
        if let Err(error) = &done {
            self.watermark.exit_if_sync_failed(error);
            tracing::warn!(%error, "failed to checkpoint the journal's log");
        }
        done.is_ok()
    }
}
