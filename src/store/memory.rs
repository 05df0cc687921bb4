//! The store without a disk: for tests, and for servers that may forget everything when they end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::folding::{fold, output_of};
use super::journal::spawn;
use super::projection_query::ended_attempt;
use super::{Commit, Done, Journal, KeptPool, Page, PageCursor, PageSize, Projection, StoreError, weight};
use crate::model::{Change, Durability, Event, Output, Revision, Task, TaskFilter, TaskId};

/// A journal that lives as long as its handle.
pub struct MemoryJournal {
    appends: Option<Sender<(Arc<Commit>, Done)>>,
    thread: Option<JoinHandle<()>>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    commits: VecDeque<Arc<Commit>>,
    trimmed: Revision,
    end: Revision,
}

impl MemoryJournal {
    /// An empty one, with its thread.
    ///
    /// # Errors
    /// [`StoreError::Io`] when no thread can be started.
    pub fn open() -> Result<Self, StoreError> {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (appends, inbox) = channel::<(Arc<Commit>, Done)>();
        let written = Arc::clone(&kept);
        let thread = spawn("journal", "memory".as_ref(), move || {
            while let Ok((commit, done)) = inbox.recv() {
                done(written.lock().append(commit));
            }
        })?;
        Ok(Self { appends: Some(appends), thread: Some(thread), kept })
    }
}

impl Kept {
    fn append(&mut self, commit: Arc<Commit>) -> Result<(), StoreError> {
        if commit.first() != self.end.next() {
            return Err(StoreError::Io {
                action: "append to",
                path: "memory".into(),
                detail: format!("revision {} does not follow {}; report this", commit.first(), self.end),
            });
        }
        self.end = commit.last();
        self.commits.push_back(commit);
        Ok(())
    }
}

impl Journal for MemoryJournal {
    fn reaches(&self) -> Durability {
        Durability::Memory
    }

    fn append(&self, commit: Arc<Commit>, done: Done) {
        let Some(appends) = &self.appends else { return done(Err(StoreError::Closed)) };
        if let Err(refused) = appends.send((commit, done)) {
            (refused.0.1)(Err(StoreError::Closed));
        }
    }

    fn read(&self, after: Revision, limit: usize) -> Result<Vec<Event>, StoreError> {
        let kept = self.kept.lock();
        if after < kept.trimmed {
            return Err(StoreError::Compacted { oldest: kept.trimmed });
        }
        let mut events = Vec::new();
        let begin = kept.commits.partition_point(|commit| commit.last() <= after);
        for commit in kept.commits.range(begin..) {
            if events.len() >= limit.max(1) {
                break;
            }
            events.extend(commit.events.iter().filter(|event| event.revision > after).cloned());
        }
        Ok(events)
    }

    /// Nothing survives the server, so nothing has to be written down.
    fn keep_pool(&self, _kept: &KeptPool) -> Result<(), StoreError> {
        Ok(())
    }

    fn oldest(&self) -> Revision {
        self.kept.lock().trimmed
    }

    fn trim(&self, up_to: Revision) -> Result<(), StoreError> {
        let mut kept = self.kept.lock();
        while let Some(commit) = kept.commits.front()
            && commit.last() <= up_to
        {
            kept.trimmed = commit.last();
            kept.commits.pop_front();
        }
        Ok(())
    }
}

impl Drop for MemoryJournal {
    fn drop(&mut self) {
        self.appends = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// A projection that is always at the revision it was fed.
pub struct MemoryProjection {
    rows: RwLock<Rows>,
    reached: watch::Sender<Revision>,
    /// It has none.
    trouble: watch::Sender<Option<StoreError>>,
}

#[derive(Default)]
struct Rows {
    tasks: BTreeMap<u64, Task>,
    outputs: BTreeMap<(u64, u32), Output>,
    by_id: HashMap<TaskId, u64>,
    revision: Revision,
}

impl Default for MemoryProjection {
    fn default() -> Self {
        Self {
            rows: RwLock::default(),
            reached: watch::Sender::new(Revision::default()),
            trouble: watch::Sender::new(None),
        }
    }
}

impl Rows {
    fn take(&mut self, event: &Event) {
        if event.revision <= self.revision {
            return;
        }
        self.revision = event.revision;
        let seq = match &event.change {
            Change::Submitted { .. } => event.revision.0,
            _ => match self.by_id.get(&event.task) {
                Some(seq) => *seq,
                None => return,
            },
        };
        let mut task = self.tasks.remove(&seq);
        fold(&mut task, event);
        if let Some(task) = task {
            if let Change::Submitted { .. } = event.change {
                self.by_id.insert(event.task.clone(), seq);
            }
            self.tasks.insert(seq, task);
            if let Some(output) = output_of(event) {
                self.outputs.insert((seq, event.attempt), output.clone());
            }
        } else {
            self.by_id.remove(&event.task);
            // A range, so that forgetting many tasks does not look at every output each time.
            let outputs: Vec<_> = self.outputs.range((seq, 0)..=(seq, u32::MAX)).map(|(key, _)| *key).collect();
            for key in outputs {
                self.outputs.remove(&key);
            }
        }
    }

    fn find(&self, id: &TaskId) -> Option<(u64, &Task)> {
        let seq = *self.by_id.get(id)?;
        self.tasks.get(&seq).map(|task| (seq, task))
    }
}

/// A task as a page shows it. Nothing large is copied: bytes are shared.
fn listed(task: &Task, result: bool) -> Task {
    let mut task = task.clone();
    if !task.spec.payload.is_empty() {
        task.spec = Arc::new(task.spec.without_payload());
    }
    if !result {
        task.status.result = None;
    }
    task
}

impl Projection for MemoryProjection {
    fn feed(&self, commit: Arc<Commit>) {
        let mut rows = self.rows.write();
        for event in &commit.events {
            rows.take(event);
        }
        self.reached.send_replace(rows.revision);
    }

    fn reached(&self) -> watch::Receiver<Revision> {
        self.reached.subscribe()
    }

    fn trouble(&self) -> watch::Receiver<Option<StoreError>> {
        self.trouble.subscribe()
    }

    fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.rows.read().find(id).map(|(_, task)| task.clone()))
    }

    fn output(&self, id: &TaskId, attempt: u32) -> Result<Option<(u32, Output)>, StoreError> {
        let rows = self.rows.read();
        let Some((seq, task)) = rows.find(id) else { return Ok(None) };
        let Some(wanted) = ended_attempt(&task.status, attempt) else { return Ok(None) };
        Ok(Some((wanted, rows.outputs.get(&(seq, wanted)).cloned().unwrap_or_default())))
    }

    fn list(&self, filter: &TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, StoreError> {
        let rows = self.rows.read();
        let mut page = Page { revision: rows.revision, ..Page::default() };
        let before = after.map_or(u64::MAX, |cursor| cursor.0);
        let (mut last, mut bytes) = (None, 0);
        let found = rows.tasks.range(..before).rev().filter(|(_, task)| filter.matches_task(task));
        for (seq, task) in found {
            let task = listed(task, size.results);
            if size.is_reached(&page, bytes, &task) {
                page.next = last.map(PageCursor);
                break;
            }
            bytes += weight(&task);
            page.tasks.push(task);
            last = Some(*seq);
        }
        Ok(page)
    }

    fn checkpoint(&self) -> Result<Revision, StoreError> {
        Ok(self.rows.read().revision)
    }
}
