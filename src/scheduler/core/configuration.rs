//! A new configuration while the server runs. It decides the same as a restart with that configuration would.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{Autoscale, Catalog, Namespace, PoolSettings, PoolSpec};
use crate::scheduler::refusal::{BadField, Refusal};

use super::pool_override::settings_after;
use super::state::Core;

impl Core {
    /// Whether [`Core::reconfigure`] can replace the pools with these.
    ///
    /// # Errors
    /// [`BadField`] names the pool by its position: the kind of a pool cannot change.
    pub fn check_pools(&self, pools: &[PoolSpec]) -> Result<(), Refusal> {
        for (position, spec) in pools.iter().enumerate() {
            let present = self.index_of_pool(&spec.name).map(|index| &self.pools[usize::from(index)].spec);
            if let Some(present) = present.filter(|present| present.kind != spec.kind) {
                let kind = present.kind.name();
                let description =
                    format!("cannot change while the server runs: pool `{}` is of kind \"{kind}\"; restart", spec.name);
                return Err(BadField { field: format!("pool[{position}].kind"), description }.into());
            }
        }
        Ok(())
    }

    /// Replaces the configured handlers and pools. A pool that is missing in the new configuration accepts nothing and starts
    /// nothing, but keeps its tasks until it is configured again.
    pub fn reconfigure(&mut self, pools: Vec<PoolSpec>, catalog: Arc<Catalog>) {
        // Budgets of memory and message sizes depend on the limit, so it changes with a restart only.
        let payload_limit = self.options.catalog.payload_limit;
        self.options.catalog = Arc::new(Catalog { payload_limit, ..Arc::unwrap_or_clone(catalog) });
        self.limits.mark_all_changed();
        for pool in &mut self.pools {
            pool.configured = false;
            pool.spec.paused = true;
        }
        for spec in pools {
            match self.index_of_pool(&spec.name) {
                Some(index) => self.configure_pool(index, spec),
                None => drop(self.add_configured(spec)),
            }
        }
    }

    /// Adds a pool, with the changes that were made while an earlier server ran.
    pub(super) fn add_configured(&mut self, spec: PoolSpec) -> u16 {
        let index = self.add_pool(spec.clone(), true);
        self.configure_pool(index, spec);
        index
    }

    fn configure_pool(&mut self, index: u16, spec: PoolSpec) {
        let left = self.unapplied_changes.remove(&spec.name);
        let pool = &mut self.pools[usize::from(index)];
        pool.configured = true;
        pool.configuration = PoolSettings::of(&spec);
        pool.change = pool.change.or(left);
        let configured = pool.configuration;
        let settings = pool.change.map_or(configured, |(_, change)| settings_after(configured, change).0);
        let PoolSettings { size, queue_limit, paused } = settings;
        let size = match spec.autoscale {
            Some(Autoscale { min, max }) => pool.spec.size.clamp(min, max),
            None if pool.is_remote() => pool.spec.size,
            None => size,
        };
        let max = spec.max_running_per_namespace;
        let changes_max = max != pool.spec.max_running_per_namespace;
        if spec.weights != pool.spec.weights {
            pool.queues.set_weights(&spec.weights);
        }
        pool.spec = PoolSpec { size, queue_limit, paused, ..spec };
        if changes_max {
            let slots = self.slots_by_namespace(index);
            self.pools[usize::from(index)].queues.limit_slots(max, slots);
        }
        // Their window has changed with the size.
        self.pools[usize::from(index)].queues.mark_all_changed();
    }

    fn slots_by_namespace(&self, pool: u16) -> HashMap<Namespace, usize> {
        let mut slots = HashMap::new();
        for (_, task) in self.tasks.iter().filter(|(_, task)| task.pool == pool && task.has_attempt) {
            *slots.entry_ref(&task.spec.options.namespace).or_default() += 1;
        }
        slots
    }
}
