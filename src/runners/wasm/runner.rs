//! The runner of WebAssembly handlers.

use std::sync::Arc;

use super::attempt;
use super::engine::Engine;
use super::handler::WasmHandler;
use super::options::{ModuleError, OptionsError, WasmOptions};
use crate::runners::{BoxFuture, Run, RunReport, Runner};

#[derive(Clone)]
pub struct WasmRunner {
    handler: Arc<WasmHandler>,
}

impl WasmRunner {
    /// Reads, compiles and tries the module, which can take some seconds. Blocks.
    ///
    /// # Errors
    /// [`OptionsError`] names the file and the reason.
    pub fn new(options: WasmOptions, engine: Arc<Engine>) -> Result<Self, OptionsError> {
        Ok(Self { handler: Arc::new(WasmHandler::new(options, engine)?) })
    }

    /// Compiles an uploaded module, which can take some seconds, and runs nothing of it. Blocks.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn of_upload(options: WasmOptions, module: &[u8], engine: Arc<Engine>) -> Result<Self, ModuleError> {
        Ok(Self { handler: Arc::new(WasmHandler::compiled(options, module, Vec::new(), engine)?) })
    }
}

impl Runner for WasmRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move { attempt::run(&handler, run).await })
    }
}
