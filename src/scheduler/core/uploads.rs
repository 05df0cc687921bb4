//! Handlers that callers upload and delete.

use std::sync::Arc;

use crate::model::limits::UPLOADED_HANDLERS_MAX;
use crate::model::{
    Event, HandlerChange, HandlerEvent, HandlerName, HandlerSource, ModuleDigest, PoolKind, PoolName, Timestamp,
    Upload, UploadSettings,
};
use crate::scheduler::refusal::{BadField, HandlerNotUploaded, Refusal, UnknownHandler};

use super::decisions::Decisions;
use super::state::Core;

/// A handler to upload.
#[derive(Clone, Debug)]
pub struct NewUpload {
    pub name: HandlerName,
    /// `None`: the first pool in which it can run.
    pub pool: Option<PoolName>,
    pub settings: UploadSettings,
}

impl Core {
    /// Adds or replaces an uploaded handler, whose module is compiled and stored. Changes nothing if it is the same already.
    ///
    /// # Errors
    /// [`HandlerNotUploaded`] if the handler has another source, `UnknownPool`, and [`BadField`] for a pool of another kind and if
    /// there are too many uploads.
    pub fn put_handler(
        &mut self,
        now: Timestamp,
        NewUpload { name, pool, settings }: NewUpload,
        module: ModuleDigest,
        out: &mut Decisions,
    ) -> Result<(), Refusal> {
        self.check_source(&name)?;
        let upload = Upload { pool: self.pool_for_guests(pool)?, module, settings };
        match self.uploads.get(&name) {
            Some(present) if **present == upload => return Ok(()),
            None if self.uploads.len() >= UPLOADED_HANDLERS_MAX => {
                let text = format!(
                    "is `{name}`, but {UPLOADED_HANDLERS_MAX} handlers are uploaded, which is the limit; delete one first"
                );
                return Err(bad_field("name", text));
            }
            _ => {}
        }
        self.change_handler(now, name, HandlerChange::Uploaded(Arc::new(upload)), out);
        Ok(())
    }

    /// Deletes an uploaded handler, also if the configuration has one of this name.
    ///
    /// # Errors
    /// [`HandlerNotUploaded`], [`UnknownHandler`].
    pub fn delete_handler(&mut self, now: Timestamp, name: HandlerName, out: &mut Decisions) -> Result<(), Refusal> {
        if !self.uploads.contains_key(&name) {
            self.check_source(&name)?;
            return Err(UnknownHandler { handler: name }.into());
        }
        self.change_handler(now, name, HandlerChange::Deleted, out);
        Ok(())
    }

    /// Uploads, also those that the configuration hides.
    pub fn uploads(&self) -> impl Iterator<Item = (&HandlerName, &Arc<Upload>)> {
        self.uploads.iter()
    }

    fn change_handler(&mut self, at: Timestamp, handler: HandlerName, change: HandlerChange, out: &mut Decisions) {
        let event = HandlerEvent { revision: self.revision.next(), at, handler, change };
        self.apply_handler(&event);
        out.events.push(Event::Handler(event));
    }

    /// Refuses a name that the configuration or a worker has given to another handler.
    fn check_source(&self, name: &HandlerName) -> Result<(), Refusal> {
        let configured = self.options.catalog.handlers.get(name).map(|spec| spec.source);
        let registered = self.registered.contains_key(name).then_some(HandlerSource::Worker);
        match configured.or(registered) {
            Some(source) => Err(HandlerNotUploaded { handler: name.clone(), found: source.name() }.into()),
            None => Ok(()),
        }
    }

    fn pool_for_guests(&self, named: Option<PoolName>) -> Result<PoolName, Refusal> {
        let Some(name) = named else {
            let mut pools = self.pools.iter().filter(|pool| pool.configured && pool.spec.kind == PoolKind::Threads);
            let first = pools.next().map(|pool| pool.spec.name.clone());
            return first.ok_or_else(|| bad_field("pool", "is required: no pool has kind \"threads\"".to_owned()));
        };
        let index = self.pool_index(&name)?;
        let kind = self.pools[usize::from(index)].spec.kind;
        if kind != PoolKind::Threads {
            let kind = kind.name();
            let text = format!(
                "is `{name}` of kind \"{kind}\", must have kind \"threads\": a guest uses the CPU of its worker"
            );
            return Err(bad_field("pool", text));
        }
        Ok(name)
    }
}

fn bad_field(field: &str, description: String) -> Refusal {
    BadField { field: format!("handler.{field}"), description }.into()
}
