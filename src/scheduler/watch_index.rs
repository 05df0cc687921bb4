//! Which watches a commit may concern, so that it wakes no other.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::{BatchId, Event, HandlerName, Namespace, Revision, TaskChange, TaskFilter, TaskId, TaskOptions};
use crate::store::Commit;

/// The commits that may concern a watch and that it has not looked at.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// From the first revision of the first to the last one of the last.
    range: Mutex<Option<(Revision, Revision)>>,
    added: Notify,
}

impl Unseen {
    fn add(&self, commit: &Commit) {
        let mut range = self.range.lock();
        let before = range.map(|(first, _)| first);
        *range = Some((before.unwrap_or_else(|| commit.first()), commit.last()));
        drop(range);
        // A watch with some takes all of them.
        if before.is_none() {
            self.added.notify_one();
        }
    }

    /// Takes them: the first revision of the first, and the last one of the last.
    pub fn take(&self) -> Option<(Revision, Revision)> {
        self.range.lock().take()
    }

    /// Waits until there are some.
    pub async fn added(&self) {
        self.added.notified().await;
    }
}

/// The watches whose filter names tasks, a batch, namespaces or a handler: each by the first of these.
#[derive(Default)]
pub(super) struct WatchIndex {
    tasks: By<TaskId>,
    batches: By<BatchId>,
    namespaces: By<Namespace>,
    handlers: By<HandlerName>,
}

impl WatchIndex {
    /// `None` if the filter names nothing by which the index finds the watch: it has to look at every commit.
    pub fn add(&mut self, filter: &TaskFilter) -> Option<Arc<Unseen>> {
        let unseen = Arc::default();
        self.edit(filter, |watches| watches.push(Arc::clone(&unseen))).then_some(unseen)
    }

    pub fn remove(&mut self, filter: &TaskFilter, unseen: &Arc<Unseen>) {
        self.edit(filter, |watches| watches.retain(|other| !Arc::ptr_eq(other, unseen)));
    }

    /// Whether the index has such watches.
    fn edit(&mut self, filter: &TaskFilter, edit: impl Fn(&mut Vec<Arc<Unseen>>)) -> bool {
        if !filter.ids.is_empty() {
            self.tasks.edit(&filter.ids, edit);
        } else if filter.batch.is_some() {
            self.batches.edit(filter.batch.as_slice(), edit);
        } else if !filter.namespaces.is_empty() {
            self.namespaces.edit(&filter.namespaces, edit);
        } else if filter.handler.is_some() {
            self.handlers.edit(filter.handler.as_slice(), edit);
        } else {
            return false;
        }
        true
    }

    /// Adds a commit to the watches that one of its events may concern.
    pub fn publish(&mut self, commit: &Commit) {
        let mut last: Option<&Arc<TaskOptions>> = None;
        for event in commit.events.iter().filter_map(Event::task) {
            self.tasks.add_commit(&event.task, commit);
            if !last.is_some_and(|last| Arc::ptr_eq(last, &event.options)) {
                self.add_to_watches_of(&event.options, commit);
                last = Some(&event.options);
            }
            // The event by which the task leaves a watch concerns it, too.
            if let TaskChange::Updated { before: Some(before), .. } = &event.change {
                self.add_to_watches_of(before, commit);
            }
        }
    }

    fn add_to_watches_of(&mut self, options: &TaskOptions, commit: &Commit) {
        if let Some(batch) = &options.batch {
            self.batches.add_commit(batch, commit);
        }
        self.namespaces.add_commit(&options.namespace, commit);
        self.handlers.add_commit(&options.handler, commit);
    }
}

struct By<K>(HashMap<K, Watches>);

#[derive(Default)]
struct Watches {
    all: Vec<Arc<Unseen>>,
    /// The last commit that was added to them.
    added: Revision,
}

impl<K> Default for By<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> By<K> {
    fn edit(&mut self, keys: &[K], edit: impl Fn(&mut Vec<Arc<Unseen>>)) {
        for key in keys {
            let watches = self.0.entry(key.clone()).or_default();
            edit(&mut watches.all);
            if watches.all.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn add_commit(&mut self, key: &K, commit: &Commit) {
        if let Some(watches) = self.0.get_mut(key)
            && watches.added != commit.last()
        {
            watches.added = commit.last();
            watches.all.iter().for_each(|unseen| unseen.add(commit));
        }
    }
}
