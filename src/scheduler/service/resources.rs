//! Pools follow their load and the memory.

use crate::model::{PoolKind, PoolSpec};
use crate::pool::Sample;
use crate::scheduler::views::Resources;

use super::state::Service;

impl Service {
    pub(super) fn follow(&mut self, Resources { cpu, memory_low }: Resources) {
        if memory_low != self.core.memory_is_low() {
            self.core.set_memory_low(memory_low);
            for (pool, view) in self.pools.iter().zip(&self.pool_views) {
                if let (Some(pool), Some(view)) = (pool, view) {
                    pool.set_paused(self.starts_nothing(&view.spec));
                }
            }
        }
        self.scale_pools(cpu);
    }

    /// Whether a configured pool must not start attempts.
    pub(super) fn starts_nothing(&self, pool: &PoolSpec) -> bool {
        let lacks_memory = self.core.memory_is_low() && pool.kind != PoolKind::Remote;
        pool.paused || lacks_memory || self.shared.draining.is_cancelled()
    }

    /// Gives the pools that autoscale as many workers as they need now.
    fn scale_pools(&mut self, cpu: f64) {
        if self.shared.draining.is_cancelled() {
            return;
        }
        let now = self.shared.clock.now();
        for (index, bounds) in self.core.autoscaled_pools() {
            let position = usize::from(index);
            let Some(Some(pool)) = self.pools.get(position) else { continue };
            let (Some(load), Some(Some(view))) = (pool.load(), self.pool_views.get_mut(position)) else { continue };
            let autoscaler = self.autoscalers.entry(index).or_default();
            let target = autoscaler.target(bounds, Sample { now, load, cpu });
            if target == load.slots {
                continue;
            }
            let (name, from, waiting) = (&view.spec.name, load.slots, load.waiting);
            let size = match pool.resize(target) {
                Ok(()) => {
                    tracing::info!(pool = %name, from, to = target, waiting, "the size of a pool follows its load");
                    target
                }
                Err(error) => {
                    tracing::error!(pool = %name, %error, "failed to start the workers of a pool");
                    pool.load().map_or(from, |load| load.slots)
                }
            };
            view.spec.size = size;
            self.core.scale_pool(index, size);
        }
    }
}
