//! The set of pools and their settings.

use crate::model::{Autoscale, Event, PoolChange, PoolEvent, PoolName, PoolSettings, PoolSpec, Timestamp};
use crate::scheduler::refusal::{BadField, EtagMismatch, Refusal, UnknownPool};

use super::decision_log::{DecisionFilter, DecisionPage};
use super::decisions::Decisions;
use super::pool_override::settings_after;
use super::pool_state::{PoolState, PoolView};
use super::state::Core;

/// Changes of a pool; `None` keeps the present value.
#[derive(Clone, Debug)]
pub struct PoolUpdate {
    pub name: PoolName,
    /// Workers, 1 to 1,000; not of a remote pool, or of one that autoscales.
    pub size: Option<usize>,
    pub paused: Option<bool>,
    /// Maximum number of WAITING and QUEUED tasks.
    pub queue_limit: Option<usize>,
    /// Refuses the update unless this is the pool's etag.
    pub etag: Option<String>,
}

impl Core {
    /// Lets pools with workers of their own start nothing while memory is low.
    pub fn set_memory_low(&mut self, is_low: bool) {
        self.memory_low = is_low;
    }

    pub fn memory_is_low(&self) -> bool {
        self.memory_low
    }

    /// Whether the pool is paused, or would use memory that is low.
    pub(super) fn starts_nothing(&self, pool: &PoolState) -> bool {
        pool.spec.paused || self.lacks_memory(pool)
    }

    pub(super) fn lacks_memory(&self, pool: &PoolState) -> bool {
        self.memory_low && !pool.is_remote()
    }

    /// Adds a pool and returns its index.
    pub(super) fn add_pool(&mut self, spec: PoolSpec, configured: bool) -> u16 {
        let index = u16::try_from(self.pools.len()).unwrap_or(u16::MAX);
        self.pool_names.insert(spec.name.clone(), index);
        self.pools.push(PoolState::new(spec, configured));
        index
    }

    /// Index of the pool of a task. Adds a paused pool if the name is not configured any more.
    pub(super) fn pool_of(&mut self, name: &PoolName) -> u16 {
        if let Some(index) = self.pool_names.get(name) {
            return *index;
        }
        self.add_pool(PoolSpec { paused: true, ..PoolSpec::with_defaults(name.clone(), 1) }, false)
    }

    /// Index of a configured pool.
    ///
    /// # Errors
    /// [`UnknownPool`].
    pub fn pool_index(&self, name: &PoolName) -> Result<u16, Refusal> {
        let found = self.pool_names.get(name).copied().filter(|index| self.pools[usize::from(*index)].configured);
        found.ok_or_else(|| UnknownPool { pool: name.clone() }.into())
    }

    /// Index of a pool that is configured, or was or has tasks from a time when it was.
    pub fn index_of_pool(&self, name: &PoolName) -> Option<u16> {
        self.pool_names.get(name).copied()
    }

    /// The newest dispatches of a pool that match, before `before` if it is given.
    ///
    /// # Errors
    /// `UnknownPool`.
    pub fn decisions(
        &self,
        pool: &PoolName,
        filter: &DecisionFilter,
        before: Option<u64>,
        count: usize,
    ) -> Result<DecisionPage, Refusal> {
        let pool = &self.pools[usize::from(self.pool_index(pool)?)];
        Ok(pool.decisions.page(filter, before.unwrap_or(u64::MAX), count))
    }

    /// By index; `None` for a pool that is not configured any more.
    pub fn views_by_index(&self) -> Vec<Option<PoolView>> {
        self.pools.iter().map(|pool| pool.configured.then(|| pool.view())).collect()
    }

    /// All configured pools.
    #[cfg(test)]
    pub fn pool_views(&self) -> Vec<PoolView> {
        self.pools.iter().filter(|pool| pool.configured).map(PoolState::view).collect()
    }

    /// Changes a pool and returns its index and new settings.
    ///
    /// # Errors
    /// [`UnknownPool`], [`BadField`], [`EtagMismatch`].
    pub fn update_pool(
        &mut self,
        now: Timestamp,
        update: &PoolUpdate,
        out: &mut Decisions,
    ) -> Result<(u16, PoolView), Refusal> {
        let index = self.pool_index(&update.name)?;
        let pool = &self.pools[usize::from(index)];
        if update.size.is_some() && !pool.spec.has_fixed_size() {
            let description = match pool.spec.autoscale {
                None => "cannot be set: the pool is of kind REMOTE and has the slots of the workers that are connected"
                    .into(),
                Some(Autoscale { min, max }) => {
                    format!("cannot be set: the configuration lets the pool autoscale from {min} to {max} workers")
                }
            };
            return Err(BadField { field: "size".to_owned(), description }.into());
        }
        let current = pool.view().etag;
        if let Some(given) = update.etag.as_ref().filter(|given| **given != current) {
            return Err(
                EtagMismatch { subject: format!("pool `{}`", update.name), given: given.clone(), current }.into()
            );
        }
        let present = PoolSettings::of(&pool.spec);
        let set = PoolSettings {
            size: update.size.unwrap_or(present.size),
            paused: update.paused.unwrap_or(present.paused),
            queue_limit: update.queue_limit.unwrap_or(present.queue_limit),
        };
        let change = PoolChange::Updated { configured: pool.configuration, set };
        let event = PoolEvent { revision: self.revision.next(), at: now, pool: update.name.clone(), change };
        self.apply_pool(&event);
        out.events.push(Event::Pool(event));
        Ok((index, self.pools[usize::from(index)].view()))
    }

    /// Applies an event of a pool. The change of a pool that is not configured any more is left until it is configured again.
    pub(super) fn apply_pool(&mut self, event: &PoolEvent) {
        self.revision = event.revision;
        let Ok(index) = self.pool_index(&event.pool) else {
            self.unapplied_changes.insert(event.pool.clone(), (event.revision, event.change));
            return;
        };
        let pool = &mut self.pools[usize::from(index)];
        let (PoolSettings { size, queue_limit, paused }, _) = settings_after(pool.configuration, event.change);
        let size = if pool.spec.has_fixed_size() { size } else { pool.spec.size };
        pool.spec = PoolSpec { size, queue_limit, paused, ..pool.spec.clone() };
        pool.change = Some((event.revision, event.change));
        // Their window has changed with the size.
        pool.queues.mark_all_changed();
    }

    /// The configured pools that autoscale, with their bounds.
    pub fn autoscaled_pools(&self) -> Vec<(u16, Autoscale)> {
        let configured = (0..).zip(&self.pools).filter(|(_, pool)| pool.configured);
        configured.filter_map(|(index, pool)| Some((index, pool.spec.autoscale?))).collect()
    }

    /// Sets the number of workers of a pool that autoscales, within its bounds. It is no setting: no event records it.
    pub fn scale_pool(&mut self, index: u16, size: usize) {
        let pool = &mut self.pools[usize::from(index)];
        if let Some(Autoscale { min, max }) = pool.spec.autoscale {
            pool.spec.size = size.clamp(min, max);
            // Their window has changed with the size.
            pool.queues.mark_all_changed();
        }
    }

    /// Present number of workers, or of slots of a remote pool.
    pub fn pool_size(&self, index: u16) -> usize {
        self.pools[usize::from(index)].spec.size
    }

    /// The configured pools with settings that were changed while a server ran and still apply.
    pub fn changed_pools(&self) -> impl Iterator<Item = &PoolSpec> {
        let configured = self.pools.iter().filter(|pool| pool.configured && pool.change.is_some());
        let changed = |pool: &&PoolState| PoolSettings::of(&pool.spec) != pool.configuration;
        configured.filter(changed).map(|pool| &pool.spec)
    }

    /// Forgets the settings that were changed while a server ran and that the configuration has replaced since, so that
    /// they do not apply again when the configuration returns to what it was. Call it after recovery and after
    /// [`Core::reconfigure`]; returns the names of the pools and settings.
    pub fn forget_replaced_settings(
        &mut self,
        now: Timestamp,
        out: &mut Decisions,
    ) -> Vec<(PoolName, Vec<&'static str>)> {
        let replaced = |pool: &PoolState| {
            let (set, names) = settings_after(pool.configuration, pool.change?.1);
            let change = PoolChange::Updated { configured: pool.configuration, set };
            (pool.configured && !names.is_empty()).then(|| (pool.spec.name.clone(), names, change))
        };
        let all: Vec<_> = self.pools.iter().filter_map(replaced).collect();
        let forget = |(pool, names, change): (PoolName, _, _)| {
            let event = PoolEvent { revision: self.revision.next(), at: now, pool: pool.clone(), change };
            self.apply_pool(&event);
            out.events.push(Event::Pool(event));
            (pool, names)
        };
        all.into_iter().map(forget).collect()
    }

    /// Sets the counters and histograms of a pool to zero and returns its index.
    ///
    /// # Errors
    /// [`UnknownPool`].
    pub fn reset_counters(&mut self, now: Timestamp, pool: &PoolName) -> Result<u16, Refusal> {
        let index = self.pool_index(pool)?;
        self.pools[usize::from(index)].reset_counters(now);
        Ok(index)
    }

    /// Sets the counters of all pools to zero, after recovery has counted replayed events.
    pub fn reset_all_counters(&mut self, now: Timestamp) {
        for pool in &mut self.pools {
            pool.reset_counters(now);
        }
    }
}
