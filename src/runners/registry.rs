//! The table of handlers. It is replaced as a whole; attempts that run keep the runner that they began with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::HandlerName;

use super::runner::Runner;

pub type Runners = BTreeMap<HandlerName, Arc<dyn Runner>>;

#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Runners>,
}

impl From<Runners> for Registry {
    fn from(runners: Runners) -> Self {
        Self { current: ArcSwap::from_pointee(runners) }
    }
}

impl Registry {
    pub fn replace(&self, runners: Runners) {
        self.current.store(Arc::new(runners));
    }

    pub fn get(&self, name: &HandlerName) -> Option<Arc<dyn Runner>> {
        self.current.load().get(name).cloned()
    }
}
