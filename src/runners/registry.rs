//! The table of handlers. Attempts that run keep the runner that they began with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::HandlerName;

use super::runner::Runner;

pub type Runners = BTreeMap<HandlerName, Arc<dyn Runner>>;

#[derive(Default)]
pub struct Registry {
    /// Replaced as a whole.
    configured: ArcSwap<Runners>,
    uploaded: ArcSwap<Runners>,
}

impl From<Runners> for Registry {
    fn from(configured: Runners) -> Self {
        Self { configured: ArcSwap::from_pointee(configured), uploaded: ArcSwap::default() }
    }
}

impl Registry {
    /// Replaces the configured handlers.
    pub fn replace(&self, runners: Runners) {
        self.configured.store(Arc::new(runners));
    }

    /// Adds or replaces an uploaded handler.
    pub fn put(&self, name: &HandlerName, runner: &Arc<dyn Runner>) {
        self.uploaded.rcu(|uploaded| {
            let mut uploaded = Runners::clone(uploaded);
            uploaded.insert(name.clone(), Arc::clone(runner));
            uploaded
        });
    }

    /// Removes an uploaded handler.
    pub fn remove(&self, name: &HandlerName) {
        self.uploaded.rcu(|uploaded| {
            let mut uploaded = Runners::clone(uploaded);
            uploaded.remove(name);
            uploaded
        });
    }

    /// The configured handler of this name, or else the uploaded one.
    pub fn get(&self, name: &HandlerName) -> Option<Arc<dyn Runner>> {
        let configured = self.configured.load().get(name).cloned();
        configured.or_else(|| self.uploaded.load().get(name).cloned())
    }
}
