//! The set of pools and their settings.

use crate::model::{PoolName, PoolSpec, Timestamp};
use crate::scheduler::refusal::{EtagMismatch, Refusal, UnknownPool};

use super::pool_state::{PoolState, PoolView};
use super::state::Core;

/// Changes of a pool; `None` keeps the present value.
#[derive(Clone, Debug)]
pub struct PoolUpdate {
    pub name: PoolName,
    /// Workers, 1 to 1,000.
    pub size: Option<usize>,
    pub paused: Option<bool>,
    /// Maximum number of WAITING and QUEUED tasks.
    pub queue_limit: Option<usize>,
    /// Refuses the update unless this is the pool's etag.
    pub etag: Option<String>,
}

impl Core {
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

    /// All configured pools.
    pub fn pool_views(&self) -> Vec<PoolView> {
        self.pools.iter().filter(|pool| pool.configured).map(PoolState::view).collect()
    }

    /// Changes a pool and returns its index and new settings.
    ///
    /// # Errors
    /// [`UnknownPool`], [`EtagMismatch`].
    pub fn update_pool(&mut self, update: &PoolUpdate) -> Result<(u16, PoolView), Refusal> {
        let index = self.pool_index(&update.name)?;
        let pool = &mut self.pools[usize::from(index)];
        let current = pool.view().etag;
        if let Some(given) = update.etag.as_ref().filter(|given| **given != current) {
            return Err(EtagMismatch { pool: update.name.clone(), given: given.clone(), current }.into());
        }
        pool.spec.size = update.size.unwrap_or(pool.spec.size);
        pool.spec.paused = update.paused.unwrap_or(pool.spec.paused);
        pool.spec.queue_limit = update.queue_limit.unwrap_or(pool.spec.queue_limit);
        pool.version += 1;
        Ok((index, pool.view()))
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
