//! Handlers that workers register, and the catalog of all handlers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::limits::REGISTERED_HANDLERS_MAX;
use crate::model::{
    Catalog, Event, HandlerChange, HandlerEvent, HandlerName, PoolKind, PoolName, REMOTE_RUNNER, Registration,
    Timestamp, WASM_RUNNER,
};
use crate::scheduler::refusal::{BadField, NotRemotePool, Refusal};

use super::decisions::Decisions;
use super::state::Core;

impl Core {
    /// Registers the handlers, given with their descriptions, that a worker of the pool offers, unless they are known there.
    ///
    /// # Errors
    /// `UnknownPool`, [`NotRemotePool`]; [`BadField`] for a handler that the configuration does not allow in this
    /// pool, and if there are too many. Then no handler is registered.
    pub fn register_handlers(
        &mut self,
        now: Timestamp,
        pool: &PoolName,
        handlers: &[(HandlerName, Box<str>)],
        out: &mut Decisions,
    ) -> Result<(), Refusal> {
        let index = self.pool_index(pool)?;
        if self.pools[usize::from(index)].spec.kind != PoolKind::Remote {
            return Err(NotRemotePool { pool: Some(pool.clone()) }.into());
        }
        let mut registrations = BTreeMap::new();
        let mut count = self.registered.len();
        for (index, (handler, description)) in handlers.iter().enumerate() {
            let field = || format!("handlers[{index}].name");
            if let Some(reason) = self.not_offerable(handler, pool) {
                return Err(bad_field(&field(), reason));
            }
            let Some(registration) = self.registration(handler, description, pool) else { continue };
            let is_new = registrations.insert(handler.clone(), registration).is_none();
            count += usize::from(is_new && !self.registered.contains_key(handler));
            if count > REGISTERED_HANDLERS_MAX {
                let reason = format!(
                    "is `{handler}`, but {REGISTERED_HANDLERS_MAX} other handlers are registered, which is the limit"
                );
                return Err(bad_field(&field(), reason));
            }
        }
        for (handler, registration) in registrations {
            let change = HandlerChange::Registered(registration);
            let event = HandlerEvent { revision: self.revision.next(), at: now, handler, change };
            self.apply_handler(&event);
            out.events.push(Event::Handler(event));
        }
        Ok(())
    }

    /// Why workers of the pool cannot offer the handler, as the end of a sentence about its name.
    fn not_offerable(&self, handler: &HandlerName, pool: &PoolName) -> Option<String> {
        let configured = self.options.catalog.handlers.get(handler);
        let uploaded = self.uploads.contains_key(handler).then_some(WASM_RUNNER);
        let runner = configured.map(|spec| spec.runner).or(uploaded)?;
        if runner != REMOTE_RUNNER {
            return Some(format!(
                "is `{handler}`, which the server itself runs (runner `{runner}`); choose another name"
            ));
        }
        let reason = || {
            format!(
                "is `{handler}`, which the configuration does not allow in pool `{pool}`; add it to `allowed_pools`"
            )
        };
        (!configured?.runs_in(pool)).then(reason)
    }

    /// The new registration of a handler that is offered in the pool; `None` if the present one already has the pool, or if
    /// the configuration has the handler.
    fn registration(&self, handler: &HandlerName, description: &str, pool: &PoolName) -> Option<Registration> {
        let catalog = &self.options.catalog;
        if catalog.is_configured(handler) {
            return None;
        }
        let Some(earlier) = self.registered.get(handler) else {
            return Some(Registration { pools: [pool.clone()].into(), description: description.into() });
        };
        if earlier.pools.contains(pool) {
            return None;
        }
        // Pools that are gone from the configuration are left out, so that the list stays as short as that of the pools.
        let kept = earlier.pools.iter().filter(|pool| catalog.is_remote(pool));
        let pools = kept.chain([pool]).cloned().collect();
        Some(Registration { pools, description: earlier.description.clone() })
    }

    /// Applies an event of a handler.
    pub(super) fn apply_handler(&mut self, event: &HandlerEvent) {
        self.revision = event.revision;
        let handler = event.handler.clone();
        match &event.change {
            HandlerChange::Registered(registration) => drop(self.registered.insert(handler, registration.clone())),
            HandlerChange::Uploaded(upload) => drop(self.uploads.insert(handler, Arc::clone(upload))),
            HandlerChange::Deleted => drop(self.uploads.remove(&handler)),
        }
    }

    /// The configured pools, and the handlers: configured, registered and uploaded.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = (*self.options.catalog).clone();
        for (handler, registration) in &self.registered {
            catalog.register(handler, registration);
        }
        for (handler, upload) in &self.uploads {
            catalog.upload(handler, upload);
        }
        catalog
    }
}

/// A field of the introduction of a worker is invalid.
fn bad_field(field: &str, description: String) -> Refusal {
    BadField { field: format!("hello.{field}"), description }.into()
}
