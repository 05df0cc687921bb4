//! The table of handlers, fixed after start.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{HandlerName, HandlerSpec};

use super::runner::Runner;

pub struct RegisteredHandler {
    pub spec: HandlerSpec,
    pub runner: Arc<dyn Runner>,
}

#[derive(Default)]
pub struct Registry {
    handlers: BTreeMap<HandlerName, RegisteredHandler>,
}

impl Registry {
    /// Adds a handler, replacing an earlier one of the same name.
    pub fn register(&mut self, spec: HandlerSpec, runner: Arc<dyn Runner>) {
        self.handlers.insert(spec.name.clone(), RegisteredHandler { spec, runner });
    }

    pub fn get(&self, name: &HandlerName) -> Option<&RegisteredHandler> {
        self.handlers.get(name)
    }
}
