//! The tasks that have, or may have, objects in the store.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::{Artifact, ArtifactName, Event, Namespace, TaskChange, TaskId, Timestamp};

#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<TaskId, Entry>>);

#[derive(Debug)]
struct Entry {
    namespace: Namespace,
    due: Due,
    uploads: Uploads,
}

/// What the newest attempt of a task has uploaded to this server.
#[derive(Debug, Default)]
struct Uploads {
    fence: u64,
    files: HashMap<ArtifactName, Artifact>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Objects were added, or the task has changed, since the last check.
    Now,
    Checking,
    /// When its artifacts have reached their age.
    At(Timestamp),
}

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The task is not finished, or the check has failed: it has to be checked again.
    Undecided,
    Nothing,
    Until(Timestamp),
}

impl Known {
    /// Objects of a task are about to be added, or were found.
    pub(super) fn insert(&self, namespace: &Namespace, task: &TaskId) {
        let mut known = self.0.lock();
        let uploads = known.remove(task).map(|entry| entry.uploads).unwrap_or_default();
        known.insert(task.clone(), Entry { namespace: namespace.clone(), due: Due::Now, uploads });
    }

    pub(super) fn uploaded(&self, task: &TaskId, fence: u64, artifact: &Artifact) {
        let mut known = self.0.lock();
        let Some(Entry { uploads, .. }) = known.get_mut(task).filter(|entry| entry.uploads.fence <= fence) else {
            return;
        };
        if uploads.fence < fence {
            *uploads = Uploads { fence, ..Uploads::default() };
        }
        uploads.files.insert(artifact.name.clone(), artifact.clone());
    }

    /// What the attempt has uploaded to this server, as far as it is known.
    pub(super) fn uploads(&self, task: &TaskId, fence: u64) -> HashMap<ArtifactName, Artifact> {
        let known = self.0.lock();
        let uploads = known.get(task).map(|entry| &entry.uploads).filter(|uploads| uploads.fence == fence);
        uploads.map(|uploads| uploads.files.clone()).unwrap_or_default()
    }

    /// The known tasks of which the events end an attempt or which they delete.
    pub(super) fn changed_by(&self, events: &[Event]) -> Vec<TaskId> {
        let mut known = self.0.lock();
        if known.is_empty() {
            return Vec::new();
        }
        let mut changed = Vec::new();
        for event in events.iter().filter_map(Event::task).filter(|event| may_leave_objects(&event.change)) {
            if let Some(entry) = known.get_mut(&event.task) {
                entry.due = Due::Now;
                changed.push(event.task.clone());
            }
        }
        changed
    }

    /// Begins a check; `None` if none is due.
    pub(super) fn begin_check(&self, task: &TaskId) -> Option<Namespace> {
        let mut known = self.0.lock();
        let entry = known.get_mut(task).filter(|entry| entry.due != Due::Checking)?;
        entry.due = Due::Checking;
        Some(entry.namespace.clone())
    }

    /// Ends a check. What has happened to the task meanwhile makes another one due.
    pub(super) fn end_check(&self, task: &TaskId, found: Found) {
        let mut known = self.0.lock();
        let Some(entry) = known.get_mut(task).filter(|entry| entry.due == Due::Checking) else { return };
        match found {
            Found::Undecided => entry.due = Due::Now,
            Found::Until(at) => {
                entry.due = Due::At(at);
                // The task has ended.
                entry.uploads = Uploads::default();
            }
            Found::Nothing => drop(known.remove(task)),
        }
    }

    pub(super) fn due(&self, now: Timestamp) -> Vec<TaskId> {
        let is_due = |due: Due| match due {
            Due::Now => true,
            Due::Checking => false,
            Due::At(at) => at <= now,
        };
        let known = self.0.lock();
        known.iter().filter(|(_, entry)| is_due(entry.due)).map(|(task, _)| task.clone()).collect()
    }
}

fn may_leave_objects(change: &TaskChange) -> bool {
    matches!(
        change,
        TaskChange::Completed { .. } | TaskChange::Failed { .. } | TaskChange::Cancelled { .. } | TaskChange::Deleted
    )
}
