//! Builds the runner of each configured handler.

use std::sync::Arc;

use super::error::StartError;
use super::options;
use crate::config::{Builtin, Config, Launch};
use crate::function::Handlers;
use crate::runners::builtin::{Compute, Expression, Heavy, Io};
use crate::runners::http::HttpRunner;
use crate::runners::process::{Host, ProcessRunner, preflight};
use crate::runners::{FunctionRunner, Registry, Runner};

pub(super) fn build(config: &Config, functions: &Handlers, host: &Arc<Host>) -> Result<Registry, StartError> {
    let catalog = config.catalog();
    let mut registry = Registry::default();
    for handler in &config.handlers {
        let spec = catalog.handlers.values().find(|spec| spec.name.as_str() == handler.name);
        let (Some(spec), Some(launch)) = (spec, handler.launch()) else { continue };
        let runner = match launch {
            // Runs in remote workers.
            Launch::Remote => continue,
            Launch::Function => match functions.get(&handler.name) {
                Some(found) => Arc::new(FunctionRunner::new(found.function.clone(), spec.grace)),
                None => continue,
            },
            Launch::Builtin(builtin) => builtin_runner(builtin, handler.limits.memory.map(|memory| memory.0)),
            Launch::Http(request) => {
                let runner = HttpRunner::new(options::http(*request, handler));
                Arc::new(runner.map_err(|source| StartError::HttpHandler { handler: handler.name.clone(), source })?)
            }
            Launch::Process(process) => {
                let options = options::process(*process, handler);
                // A program that is installed later is found by later attempts.
                if let Err(problem) = preflight(&options) {
                    tracing::warn!(handler = handler.name, problem, "attempts of a handler will fail");
                }
                let runner = ProcessRunner::new(options, host.clone());
                Arc::new(runner.map_err(|source| StartError::Handler { handler: handler.name.clone(), source })?)
            }
        };
        registry.register(spec.name.clone(), runner);
    }
    Ok(registry)
}

fn builtin_runner(builtin: Builtin, memory_max: Option<u64>) -> Arc<dyn Runner> {
    match builtin {
        Builtin::Compute => Arc::new(Compute),
        Builtin::Io => Arc::new(Io),
        Builtin::Expression => Arc::new(Expression::default()),
        Builtin::Heavy => Arc::new(Heavy::new(memory_max)),
    }
}
