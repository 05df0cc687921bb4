//! A projection that applies each commit at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::model::{
    Event, Output, RememberedRequest, RequestKey, RequestName, RequestRetention, Revision, Task, TaskChange, TaskEvent,
    TaskFilter, TaskId, TaskSpec, Timestamp,
};
use crate::store::error::StoreError;
use crate::store::page::{Page, PageBuilder, PageCursor, PageSize};
use crate::store::record::{ended_attempt, fold, output_of};
use crate::store::traits::{Commit, FoundRequests, Projection};

/// Number of tasks after which a page ends: commits wait while it is read.
const EXAMINED_MAX: usize = if cfg!(test) { 20 } else { 20_000 };

pub struct MemoryProjection {
    rows: RwLock<Rows>,
    revision: watch::Sender<Revision>,
    /// Always `None`.
    fault: watch::Sender<Option<StoreError>>,
}

/// Tasks are numbered by the revision of their submission.
#[derive(Default)]
struct Rows {
    tasks: BTreeMap<u64, Task>,
    outputs: BTreeMap<(u64, u32), Output>,
    by_id: HashMap<TaskId, u64>,
    requests: RequestRows,
    revision: Revision,
}

#[derive(Default)]
struct RequestRows {
    /// In the order of submission.
    names: VecDeque<(RequestName, u64)>,
    /// The newest submission with each request ID, with its number.
    found: HashMap<RequestName, (u64, RememberedRequest)>,
    next: u64,
    retention: RequestRetention,
}

impl RequestRows {
    fn add(&mut self, event: &TaskEvent, spec: &TaskSpec) {
        let Some((key, digest)) = spec.request_with_digest() else { return };
        // Only the ID is compared.
        let name = (spec.options.namespace.clone(), Arc::new(RequestKey { id: key.id.clone(), digest: None }));
        let (task, submission, at) = (event.task.clone(), event.revision, event.at);
        let request = RememberedRequest { task, submission, digest, at, newer: 0 };
        self.found.insert(name.clone(), (self.next, request));
        self.names.push_back((name, self.next));
        self.next += 1;
        while self.names.len() as u64 > self.retention.count {
            self.remove_first();
        }
        while self.names.front().is_some_and(|first| self.is_expired(first, event.at)) {
            self.remove_first();
        }
    }

    fn is_expired(&self, (name, number): &(RequestName, u64), now: Timestamp) -> bool {
        self.found
            .get(name)
            .is_none_or(|(newest, request)| newest != number || now.since(request.at) >= self.retention.age)
    }

    fn remove_first(&mut self) {
        let Some((name, number)) = self.names.pop_front() else { return };
        if self.found.get(&name).is_some_and(|(newest, _)| *newest == number) {
            self.found.remove(&name);
        }
    }

    fn find(&self, (namespace, key): &RequestName) -> Option<RememberedRequest> {
        let name = (namespace.clone(), Arc::new(RequestKey { id: key.id.clone(), digest: None }));
        let (number, request) = self.found.get(&name)?;
        Some(RememberedRequest { newer: self.next - 1 - number, ..request.clone() })
    }
}

impl Default for MemoryProjection {
    fn default() -> Self {
        Self::new(RequestRetention::default())
    }
}

impl MemoryProjection {
    pub fn new(retention: RequestRetention) -> Self {
        let requests = RequestRows { retention, ..RequestRows::default() };
        Self {
            rows: RwLock::new(Rows { requests, ..Rows::default() }),
            revision: watch::Sender::new(Revision::default()),
            fault: watch::Sender::new(None),
        }
    }
}

impl Rows {
    fn apply(&mut self, event: &Event) {
        if event.revision() <= self.revision {
            return;
        }
        self.revision = event.revision();
        match event {
            Event::Task(event) => self.apply_task(event),
            Event::Batch(_) | Event::Schedule(_) | Event::Pool(_) | Event::Handler(_) => {}
        }
    }

    fn apply_task(&mut self, event: &TaskEvent) {
        let seq = match &event.change {
            TaskChange::Submitted { .. } => event.revision.0,
            _ => match self.by_id.get(&event.task) {
                Some(seq) => *seq,
                None => return,
            },
        };
        let mut task = self.tasks.remove(&seq);
        fold(&mut task, event);
        if let Some(task) = task {
            if let TaskChange::Submitted { spec } = &event.change {
                self.requests.add(event, spec);
                self.by_id.insert(event.task.clone(), seq);
            }
            self.tasks.insert(seq, task);
            if let Some(output) = output_of(event) {
                self.outputs.insert((seq, event.attempt), output.clone());
            }
        } else {
            self.by_id.remove(&event.task);
            // By range, so that deleting many tasks does not visit all outputs for each.
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

/// A task as a page contains it. Shares the bytes of the result.
fn listed(task: &Task, with_result: bool) -> Task {
    let mut task = task.clone();
    if !task.spec.payload.is_empty() {
        task.spec = Arc::new(task.spec.without_payload());
    }
    if !with_result {
        task.status.result = None;
    }
    task
}

impl Projection for MemoryProjection {
    fn apply(&self, commit: Arc<Commit>) {
        let mut rows = self.rows.write();
        for event in &commit.events {
            rows.apply(event);
        }
        self.revision.send_replace(rows.revision);
    }

    fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    fn fault(&self) -> watch::Receiver<Option<StoreError>> {
        self.fault.subscribe()
    }

    fn task_revision(&self) -> Revision {
        self.rows.read().revision
    }

    fn recent(&self, id: &TaskId) -> Option<Task> {
        self.rows.read().find(id).map(|(_, task)| task.clone())
    }

    fn get(&self, id: &TaskId, _: bool) -> Result<Option<Task>, StoreError> {
        Ok(self.recent(id))
    }

    fn stored_bytes(&self, _: &TaskId, _: bool) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn payload(&self, submission: Revision) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.read().tasks.get(&submission.0).map(|task| TaskSpec::payload_of(&task.spec)))
    }

    fn output(&self, id: &TaskId, attempt: u32) -> Result<Option<(u32, Output)>, StoreError> {
        let rows = self.rows.read();
        let Some((seq, task)) = rows.find(id) else { return Ok(None) };
        let Some(attempt) = ended_attempt(&task.status, attempt) else { return Ok(None) };
        Ok(Some((attempt, rows.outputs.get(&(seq, attempt)).cloned().unwrap_or_default())))
    }

    fn list(&self, filter: &TaskFilter, size: PageSize, after: Option<PageCursor>) -> Result<Page, StoreError> {
        let rows = self.rows.read();
        let mut page = PageBuilder::new(size, rows.revision);
        let before = after.map_or(u64::MAX, |cursor| cursor.0);
        for (examined, (seq, task)) in rows.tasks.range(..before).rev().enumerate() {
            if examined == EXAMINED_MAX {
                page.end_at(seq + 1);
                break;
            }
            if filter.matches_task(task) && !page.push(*seq, listed(task, size.results)) {
                break;
            }
        }
        Ok(page.finish())
    }

    fn requests(&self, names: &[RequestName]) -> Result<FoundRequests, StoreError> {
        let rows = self.rows.read();
        let requests = names.iter().map(|name| rows.requests.find(name)).collect();
        Ok(FoundRequests { revision: rows.revision, requests })
    }

    fn checkpoint(&self) -> Result<Revision, StoreError> {
        Ok(self.rows.read().revision)
    }
}
