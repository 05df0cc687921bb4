//! A WebAssembly handler with everything resolved that is the same for every attempt.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;

use super::engine::Engine;
use super::guest::GuestState;
use super::limits::{GuestLimits, MEMORY_DEFAULT};
use super::module;
use super::options::{OptionsError, WasmOptions};
use super::program::Program;
use super::streams::{LogStream, Pipe, ResultStream};
use crate::runners::Run;
use crate::runners::environment::{of_attempt, registered};

pub(super) struct WasmHandler {
    pub(super) options: WasmOptions,
    pub(super) engine: Arc<Engine>,
    pub(super) program: Program,
    env: Vec<(String, String)>,
    memory_max: usize,
}

impl WasmHandler {
    /// Blocks.
    pub(super) fn new(mut options: WasmOptions, engine: Arc<Engine>) -> Result<Self, OptionsError> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(OptionsError::NotText(name)),
            }
        };
        let env = registered(&options.env_pass, &options.env)?.into_iter().map(text).collect::<Result<_, _>>()?;
        if options.argv.is_empty() {
            let name = options.module.file_name().unwrap_or_default();
            options.argv.push(name.to_string_lossy().into_owned());
        }
        let memory_max = usize::try_from(options.memory_bytes.unwrap_or(MEMORY_DEFAULT)).unwrap_or(usize::MAX);
        let program = module::load(&engine, &options.module, memory_max)?;
        Ok(Self { options, engine, program, env, memory_max })
    }

    /// A guest for one attempt, which writes its result to the stream.
    pub(super) fn guest(&self, run: &Run, result: &ResultStream) -> Store<GuestState> {
        let mut builder = WasiCtxBuilder::new();
        builder.args(&self.options.argv).args(&run.args).envs(&self.env).envs(&of_attempt(run));
        builder.stdin(MemoryInputPipe::new(run.payload.clone()));
        builder.stdout(Pipe(result.clone())).stderr(Pipe(LogStream(Arc::clone(&run.output))));
        let guest = GuestState::new(builder, GuestLimits::new(self.memory_max), self.options.clock);
        let stop = Arc::clone(&run.stop);
        self.engine.store(guest, move || stop.cause().is_some())
    }
}
