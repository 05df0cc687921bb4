//! Removes objects that no finished task names, and artifacts that have reached their age.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use object_store::path::Path;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

use super::keys;
use super::known::Found;
use super::leftovers::{Leftovers, Skipped};
use super::store::ArtifactStore;
use crate::model::{Artifacts, Clock, Namespace, TaskId, Timestamp};

/// Longest and shortest time between two looks at the age of artifacts. What was skipped is tried again after the longest.
const INTERVAL_MAX: Duration = Duration::from_mins(10);
const INTERVAL_MIN: Duration = Duration::from_millis(250);

/// What is durable about a task.
#[derive(Debug)]
pub enum Owner {
    /// It was deleted, or never accepted.
    Absent,
    Unfinished,
    Finished {
        at: Timestamp,
        artifacts: Option<Arc<Artifacts>>,
    },
}

/// Reads what is durable about a task. The error is a message for people.
pub type OwnerSource = Arc<dyn Fn(TaskId) -> BoxFuture<'static, Result<Owner, String>> + Send + Sync>;

pub struct Cleaner {
    store: ArtifactStore,
    owners: OwnerSource,
    clock: Arc<dyn Clock>,
}

impl Cleaner {
    pub fn new(store: ArtifactStore, owners: OwnerSource, clock: Arc<dyn Clock>) -> Self {
        Self { store, owners, clock }
    }

    /// Works until `stop`. A store has one cleaner.
    pub async fn run(self, stop: CancellationToken) {
        if let Some(requested) = self.store.take_requested_checks() {
            let _ = stop.run_until_cancelled(self.work(requested)).await;
        }
    }

    async fn work(&self, mut requested: UnboundedReceiver<TaskId>) {
        let mut skipped = self.find_leftovers(HashSet::new()).await;
        let mut retries = interval_at(Instant::now() + INTERVAL_MAX, INTERVAL_MAX);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval((self.store.age() / 4).clamp(INTERVAL_MIN, INTERVAL_MAX));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(task) = requested.recv() => self.check(&task).await,
                _ = looks.tick() => {
                    for task in self.store.known().due(self.clock.now()) {
                        self.check(&task).await;
                    }
                }
                _ = retries.tick(), if !skipped.is_empty() => skipped = self.find_leftovers(skipped).await,
            }
        }
    }

    /// Removes what an earlier server has left. Returns the places that were skipped, `warned` are those of the last time.
    async fn find_leftovers(&self, warned: HashSet<String>) -> HashSet<String> {
        let Leftovers { tasks, skipped } = self.store.find_leftovers().await;
        for (namespace, task) in &tasks {
            self.store.known().insert(namespace, task);
        }
        let skipped = skipped.into_iter().map(|Skipped { place, error }| {
            if !warned.contains(&place) {
                let text = "skipped a part of the artifact store, which is tried again every ten minutes";
                tracing::warn!(place, error, "{text}: move it away if it does not belong there");
            }
            place
        });
        skipped.collect()
    }

    pub(super) async fn check(&self, task: &TaskId) {
        let Some(namespace) = self.store.known().begin_check(task) else { return };
        let found = self.remove_unnamed(&namespace, task).await.unwrap_or_else(|error| {
            tracing::warn!(%task, error, "failed to remove artifacts; they are looked at again later");
            Found::Undecided
        });
        self.store.known().end_check(task, found);
    }

    async fn remove_unnamed(&self, namespace: &Namespace, task: &TaskId) -> Result<Found, String> {
        // Before the task is read: objects of an attempt that has not ended then are not among them.
        let objects = self.store.list(&keys::of_task(namespace, task)).await.map_err(|error| error.to_string())?;
        let objects: Vec<Path> = objects.into_iter().map(|object| object.location).collect();
        let counts = self.store.counts();
        let (at, artifacts) = match (self.owners)(task.clone()).await? {
            Owner::Unfinished => return Ok(Found::Undecided),
            Owner::Absent => {
                self.remove(objects, &counts.deleted).await?;
                return Ok(Found::Nothing);
            }
            Owner::Finished { at, artifacts } => (at, artifacts),
        };
        let named: HashSet<Path> =
            artifacts.iter().flat_map(|artifacts| keys::of_artifacts(namespace, task, artifacts)).collect();
        let (named, unnamed): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| named.contains(object));
        self.remove(unnamed, &counts.unnamed).await?;
        let until = at.after(self.store.age());
        if !named.is_empty() && self.clock.now() < until {
            return Ok(Found::Until(until));
        }
        self.remove(named, &counts.expired).await?;
        Ok(Found::Nothing)
    }

    async fn remove(&self, objects: Vec<Path>, removed: &AtomicU64) -> Result<(), String> {
        for object in objects {
            self.store.delete(&object).await.map_err(|error| error.to_string())?;
            removed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
