//! The table of handlers, fixed after start.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::HandlerName;

use super::runner::Runner;

#[derive(Default)]
pub struct Registry {
    handlers: BTreeMap<HandlerName, Arc<dyn Runner>>,
}

impl Registry {
    /// Adds a handler, replacing an earlier one of the same name.
    pub fn register(&mut self, name: HandlerName, runner: Arc<dyn Runner>) {
        self.handlers.insert(name, runner);
    }

    pub fn get(&self, name: &HandlerName) -> Option<&Arc<dyn Runner>> {
        self.handlers.get(name)
    }
}
