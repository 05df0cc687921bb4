//! The runner of process handlers.

use std::sync::Arc;

use super::attempt;
use super::handler::ProcessHandler;
use super::host::Host;
use super::options::{OptionsError, ProcessOptions};
use crate::runners::{BoxFuture, Run, RunReport, Runner};

#[derive(Clone, Debug)]
pub struct ProcessRunner {
    handler: Arc<ProcessHandler>,
}

impl ProcessRunner {
    /// Validates the options and resolves program and environment.
    ///
    /// # Errors
    /// [`OptionsError`] names the invalid setting. A program that does not exist is no error here, because
    /// it may be installed later; an attempt fails without it.
    pub fn new(options: ProcessOptions, host: Arc<Host>) -> Result<Self, OptionsError> {
        Ok(Self { handler: Arc::new(ProcessHandler::new(options, host)?) })
    }
}

impl Runner for ProcessRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        Box::pin(attempt::run(Arc::clone(&self.handler), run))
    }
}
