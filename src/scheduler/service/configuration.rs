//! Replacing the configured handlers and pools while the server runs.

use std::sync::Arc;

use crate::model::Timestamp;
use crate::pool::{Pool, RemoteWorkers};
use crate::scheduler::core::Decisions;
use crate::scheduler::message::{PendingReply, Reply, send};
use crate::scheduler::refusal::{Draining, Internal, Refusal};
use crate::scheduler::views::Configuration;

use super::pending::{Change, Changed, NewConfiguration};
use super::start::forget_replaced_settings;
use super::state::Service;

impl Service {
    /// Replies when the configuration is in use.
    pub(super) fn reconfigure(
        &mut self,
        now: Timestamp,
        configuration: Configuration,
        reply: Reply<()>,
        out: &mut Decisions,
    ) {
        match self.prepare(now, configuration, out) {
            Ok(new) => {
                // In the order of the earlier changes: their effects are released first.
                let reply = Some(PendingReply::new(reply, Ok(())));
                self.pending.effects.changes.push(Changed { what: Change::Configuration(Box::new(new)), reply });
            }
            Err(refusal) => send(reply, Err(refusal)),
        }
    }

    /// Lets the core use the configuration.
    ///
    /// # Errors
    /// Then nothing has changed.
    fn prepare(
        &mut self,
        now: Timestamp,
        Configuration { pools, catalog, runners }: Configuration,
        out: &mut Decisions,
    ) -> Result<NewConfiguration, Refusal> {
        if self.shared.draining.is_cancelled() {
            return Err(Draining.into());
        }
        self.check_store()?;
        self.core.check_pools(&pools)?;
        let mut started = Vec::new();
        for spec in &pools {
            let index = self.core.index_of_pool(&spec.name).map(usize::from);
            if index.and_then(|index| self.pools.get(index)).is_some_and(Option::is_some) {
                continue;
            }
            let pool = Pool::start(spec, self.context.clone()).map_err(|error| {
                let cause = format!("workers of pool `{}` cannot be started: {error}", spec.name);
                Refusal::from(Internal { cause })
            })?;
            started.push((spec.name.clone(), pool));
        }
        self.core.reconfigure(pools, catalog);
        forget_replaced_settings(&mut self.core, now, out);
        let pools = self.core.views_by_index();
        self.pools.resize_with(pools.len(), || None);
        for (name, pool) in started {
            if let Some(index) = self.core.index_of_pool(&name) {
                self.pools[usize::from(index)] = Some(pool);
            }
        }
        Ok(NewConfiguration { runners, catalog: self.core.catalog(), pools })
    }

    /// Lets the callers, the workers and the pools follow.
    ///
    /// # Errors
    /// If workers cannot be started. The pool then has those that it could start.
    pub(super) fn apply_configuration(&mut self, new: NewConfiguration) -> Result<(), Refusal> {
        let NewConfiguration { runners, catalog, pools } = new;
        // First, so that a task of a new handler finds its runner.
        self.context.registry.replace(runners);
        self.shared.catalog.store(Arc::new(catalog));
        self.pool_views.resize_with(pools.len(), || None);
        let mut result = Ok(());
        for (index, view) in pools.into_iter().enumerate() {
            match view {
                Some(view) => {
                    result = result.and(self.apply_pool_update(u16::try_from(index).unwrap_or(u16::MAX), view));
                }
                None => self.remove_pool(index),
            }
        }
        self.publish_remote_workers();
        result
    }

    fn remove_pool(&mut self, index: usize) {
        if let Some(view) = self.pool_views[index].take() {
            tracing::warn!(pool = %view.spec.name, "a pool is not configured any more: its tasks wait until it is again");
        }
        if let Some(Some(pool)) = self.pools.get(index) {
            pool.set_paused(true);
        }
    }

    /// Lets remote workers connect to the configured remote pools.
    pub(super) fn publish_remote_workers(&self) {
        let configured = self.pools.iter().zip(&self.pool_views).filter(|(_, view)| view.is_some());
        let remote = configured.filter_map(|(pool, _)| pool.as_ref()?.remote());
        *self.shared.remote_workers.lock() = remote.map(RemoteWorkers::downgrade).collect();
    }
}
