//! The store's own threads.

use std::path::Path;
use std::thread::{Builder, JoinHandle};

use super::error::StoreError;
use crate::telemetry::panics;

/// A named thread that is joined on drop. If it panics in a server, the process ends. Its owner must first drop whatever keeps the thread running.
pub(super) struct OwnedThread(Option<JoinHandle<()>>);

impl OwnedThread {
    /// Starts a thread that works on the file at `path`.
    pub(super) fn spawn(name: &str, path: &Path, run: impl FnOnce() + Send + 'static) -> Result<Self, StoreError> {
        let run = || {
            panics::mark_thread_essential();
            run();
        };
        let spawned = Builder::new().name(name.to_owned()).spawn(run);
        spawned.map(|thread| Self(Some(thread))).map_err(|error| StoreError::Io {
            action: "start a thread for",
            path: path.to_owned(),
            detail: format!("{error}; raise the limit on threads"),
        })
    }
}

impl Drop for OwnedThread {
    fn drop(&mut self) {
        // The thread itself may drop the last handle of the store.
        if let Some(thread) = self.0.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // The panic hook has already reported a panic of the thread.
            let _ = thread.join();
        }
    }
}
