//! The thread that runs the long part of checkpoints beside the writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::schema::SCHEMA;
use super::state::JournalState;
use crate::store::error::StoreError;
use crate::store::sqlite::{keep_wal_on_close, open_writer, sqlite_error};
use crate::store::threads::OwnedThread;
use crate::threads::lower_priority;

// The sender is dropped before the thread is joined.
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    finished: Arc<AtomicBool>,
    _thread: OwnedThread,
}

impl Checkpointer {
    pub(super) fn start(state: &Arc<JournalState>) -> Result<Self, StoreError> {
        let path = &state.path;
        let connection = open_writer(path, &SCHEMA)?;
        keep_wal_on_close(&connection, false).map_err(|error| sqlite_error("open", path, &error))?;
        let (wake, woken) = sync_channel::<()>(1);
        let finished = Arc::new(AtomicBool::new(false));
        let (state, done) = (Arc::clone(state), Arc::clone(&finished));
        let thread = OwnedThread::spawn("journal-sync", &state.path.clone(), move || {
            lower_priority();
            while woken.recv().is_ok() {
                if let Err(error) = state.watermark.sync() {
                    tracing::warn!(%error, "failed to sync the journal's watermark");
                } else if state.checkpoint(&connection) {
                    done.store(true, Ordering::Release);
                }
            }
        })?;
        Ok(Self { wake, finished, _thread: thread })
    }

    /// Starts a checkpoint unless one is running.
    pub(super) fn wake(&self) {
        // A full channel means that one is about to run.
        let _ = self.wake.try_send(());
    }

    /// Whether a checkpoint has finished since the last call.
    pub(super) fn take_finished(&self) -> bool {
        self.finished.swap(false, Ordering::AcqRel)
    }
}
