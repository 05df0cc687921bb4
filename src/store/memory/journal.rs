//! A journal in memory; its content is lost when the handle is dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::{Durability, Event, Revision, StoreId};
use crate::store::error::StoreError;
use crate::store::journal_sizes::JournalSizes;
use crate::store::traits::{AppendDone, AppendError, Commit, Journal};

/// What errors name in place of a file.
const PATH: &str = "memory";

pub struct MemoryJournal {
    store_id: StoreId,
    epoch: u64,
    log: Arc<Mutex<Log>>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self { store_id: StoreId::random(), epoch: 1, log: Arc::default() }
    }
}

impl MemoryJournal {
    fn check_lease(&self, log: &Log) -> Result<(), StoreError> {
        let owner = 1 + log.later_openings;
        if self.epoch == owner {
            return Ok(());
        }
        Err(StoreError::Fenced { path: PATH.into(), epoch: self.epoch, owner })
    }
}

#[cfg(test)]
impl MemoryJournal {
    /// Another opening of the same journal.
    pub fn open_again(&self) -> Self {
        let mut log = self.log.lock();
        log.later_openings += 1;
        Self { store_id: self.store_id, epoch: 1 + log.later_openings, log: Arc::clone(&self.log) }
    }
}

#[derive(Default)]
struct Log {
    /// Openings after the first.
    later_openings: u64,
    commits: VecDeque<Arc<Commit>>,
    sizes: JournalSizes,
    trimmed: Revision,
    end: Revision,
}

impl Journal for MemoryJournal {
    fn append(&self, commit: &Arc<Commit>) -> Result<(), AppendError> {
        let mut log = self.log.lock();
        self.check_lease(&log).map_err(AppendError::Fenced)?;
        if commit.first() != log.end.next() {
            return Err(AppendError::Refused(StoreError::Io {
                action: "append to",
                path: PATH.into(),
                detail: format!("revision {} does not follow {}; report this as a bug", commit.first(), log.end),
            }));
        }
        log.end = commit.last();
        log.sizes.add(commit.last(), commit.bytes as u64);
        log.commits.push_back(Arc::clone(commit));
        Ok(())
    }

    /// Needs no thread: an append to memory does not block.
    fn append_in_background(&self, commit: Arc<Commit>, done: AppendDone) {
        done(self.append(&commit));
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn store_id(&self) -> StoreId {
        self.store_id
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError> {
        let log = self.log.lock();
        if after < log.trimmed {
            return Err(StoreError::Compacted { oldest: log.trimmed });
        }
        let mut events = Vec::new();
        let start = log.commits.partition_point(|commit| commit.last() <= after);
        for commit in log.commits.range(start..) {
            if events.len() >= limit.max(1) {
                break;
            }
            events.extend(commit.events.iter().filter(|event| event.revision() > after).cloned());
        }
        Ok(events)
    }

    fn oldest(&self) -> Revision {
        self.log.lock().trimmed
    }

    fn excess(&self, bytes: u64) -> Option<Revision> {
        self.log.lock().sizes.excess(bytes)
    }

    fn trim(&self, up_to: Revision) -> Result<(), StoreError> {
        let mut log = self.log.lock();
        self.check_lease(&log)?;
        log.sizes.trim(up_to);
        while let Some(commit) = log.commits.front()
            && commit.last() <= up_to
        {
            log.trimmed = commit.last();
            log.commits.pop_front();
        }
        Ok(())
    }
}
