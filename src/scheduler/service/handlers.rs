//! Registering, uploading and deleting handlers while the server runs.

use std::sync::Arc;

use crate::model::{Catalog, Event, HandlerChange, HandlerEvent, HandlerName, ModuleDigest, PoolName, Timestamp};
use crate::runners::Runner;
use crate::scheduler::core::{Decisions, NewUpload};
use crate::scheduler::message::{PendingReply, Reply};
use crate::scheduler::refusal::Refusal;

use super::pending::{Change, Changed};
use super::state::Service;

/// The new runner of an uploaded handler.
type NewRunner = Option<(HandlerName, Arc<dyn Runner>)>;

impl Service {
    /// Replies when the registrations are durable and in the catalog.
    pub(super) fn register_handlers(
        &mut self,
        now: Timestamp,
        pool: &PoolName,
        handlers: &[(HandlerName, Box<str>)],
        reply: Reply<()>,
        out: &mut Decisions,
    ) {
        let before = out.events.len();
        let result = self.check_store().and_then(|()| self.core.register_handlers(now, pool, handlers, out));
        self.follow_handlers(before, None, result, reply, out);
    }

    /// Replies when the handler is durable, in the catalog, and has this runner.
    pub(super) fn put_handler(
        &mut self,
        now: Timestamp,
        upload: NewUpload,
        module: ModuleDigest,
        runner: Arc<dyn Runner>,
        reply: Reply<()>,
        out: &mut Decisions,
    ) {
        let before = out.events.len();
        // Also of a handler that has not changed: the module of the present runner may have been unusable.
        let runner = Some((upload.name.clone(), runner));
        let result = self.check_store().and_then(|()| self.core.put_handler(now, upload, module, out));
        self.follow_handlers(before, runner, result, reply, out);
    }

    /// Replies when the deletion is durable and the handler is not in the catalog.
    pub(super) fn delete_handler(&mut self, now: Timestamp, name: HandlerName, reply: Reply<()>, out: &mut Decisions) {
        let before = out.events.len();
        let result = self.check_store().and_then(|()| self.core.delete_handler(now, name, out));
        self.follow_handlers(before, None, result, reply, out);
    }

    /// Lets catalog and registry follow the events after `before` once they are durable.
    fn follow_handlers(
        &mut self,
        before: usize,
        runner: NewRunner,
        result: Result<(), Refusal>,
        reply: Reply<()>,
        out: &Decisions,
    ) {
        let runner = runner.filter(|_| result.is_ok());
        let events = out.events[before..].iter().filter_map(|event| match event {
            Event::Handler(event) => Some(event.clone()),
            Event::Task(_) | Event::Batch(_) | Event::Schedule(_) | Event::Pool(_) => None,
        });
        let events: Vec<_> = events.collect();
        if events.is_empty() && runner.is_none() {
            return self.reply_when_durable(reply, result);
        }
        let reply = Some(PendingReply::new(reply, result));
        self.pending.effects.changes.push(Changed { what: Change::Handlers(events, runner), reply });
    }

    pub(super) fn apply_handlers(&self, events: &[HandlerEvent], runner: NewRunner) {
        // First, so that a task of a new handler finds its runner.
        if let Some((handler, runner)) = runner {
            self.context.registry.put(&handler, &runner);
        }
        let mut catalog = Catalog::clone(&self.shared.catalog.load());
        for HandlerEvent { handler, change, .. } in events {
            match change {
                HandlerChange::Registered(registration) => {
                    let pool = &registration.pools[registration.pools.len() - 1];
                    tracing::info!(%handler, %pool, "a worker registered a handler");
                    catalog.register(handler, registration);
                }
                HandlerChange::Uploaded(upload) => {
                    tracing::info!(%handler, pool = %upload.pool, module = %upload.module, "a handler was uploaded");
                    catalog.upload(handler, upload);
                }
                HandlerChange::Deleted => {
                    tracing::info!(%handler, "an uploaded handler was deleted");
                    catalog.remove_upload(handler);
                    self.context.registry.remove(handler);
                }
            }
        }
        self.shared.catalog.store(Arc::new(catalog));
    }
}
