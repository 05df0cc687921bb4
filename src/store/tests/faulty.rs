//! A journal whose appends fail when a test says so.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::{Durability, Event, Revision, StoreId};
use crate::store::error::StoreError;
use crate::store::traits::{AppendDone, AppendError, Commit, Journal};

/// Keeps the contract of a journal, whatever fails.
pub struct FaultyJournal {
    inner: Arc<dyn Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    end: Revision,
    /// How the next append fails.
    next: Option<AppendError>,
    /// Whether it is written nevertheless.
    written: bool,
    /// Why the last append failed.
    failure: Option<AppendError>,
}

impl FaultyJournal {
    /// The journal must be empty.
    pub fn new(inner: Arc<dyn Journal>) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// Lets the next append fail. If `written`, the commit is in the journal all the same.
    pub fn fail_next(&self, error: AppendError, written: bool) {
        let mut state = self.state.lock();
        (state.next, state.written) = (Some(error), written);
    }

    pub fn full() -> AppendError {
        AppendError::Refused(StoreError::Full { path: "some/journal.db".into() })
    }

    pub fn sync_failed() -> AppendError {
        AppendError::Unknown(StoreError::SyncFailed { path: "some/journal.db".into(), detail: "no luck".to_owned() })
    }
}

impl Journal for FaultyJournal {
    fn append(&self, commit: &Arc<Commit>) -> Result<(), AppendError> {
        let mut state = self.state.lock();
        let earlier = state.failure.clone();
        if let Some(failure) = earlier.filter(|error| error.is_final() || commit.first() != state.end.next()) {
            return Err(failure);
        }
        if let Some(error) = state.next.take() {
            if state.written {
                self.inner.append(commit)?;
            }
            state.failure = Some(error.clone());
            return Err(error);
        }
        self.inner.append(commit)?;
        state.end = commit.last();
        state.failure = None;
        Ok(())
    }

    fn append_in_background(&self, commit: Arc<Commit>, done: AppendDone) {
        done(self.append(&commit));
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn store_id(&self) -> StoreId {
        self.inner.store_id()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.inner.read(after, limit)
    }

    fn oldest(&self) -> Revision {
        self.inner.oldest()
    }

    fn excess(&self, bytes: u64) -> Option<Revision> {
        self.inner.excess(bytes)
    }

    fn trim(&self, up_to: Revision) -> Result<(), StoreError> {
        self.inner.trim(up_to)
    }
}
