//! A WebAssembly handler with everything resolved that is the same for every attempt.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;

use super::engine::Engine;
use super::guest::GuestState;
use super::limits::{GuestLimits, MEMORY_DEFAULT};
use super::module;
use super::options::{ModuleError, OptionsError, WasmOptions};
use super::program::Program;
use super::streams::{LogStream, Pipe, ResultStream};
use crate::runners::Run;
use crate::runners::environment::{of_attempt, registered};
use crate::runners::kept_files::InUse;

pub(super) struct WasmHandler {
    pub(super) options: WasmOptions,
    pub(super) engine: Arc<Engine>,
    pub(super) program: Program,
    env: Vec<(String, String)>,
    memory_max: usize,
    /// Keeps the compiled module on disk.
    _compiled: Option<InUse>,
}

impl WasmHandler {
    /// Reads, compiles and tries the module. Blocks.
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
        let binary = module::read(&options.module)?;
        let path = options.module.clone();
        let handler = Self::compiled(options, &binary, env, engine).and_then(|handler| {
            module::try_start(&handler.engine, &handler.program, handler.memory_max)?;
            Ok(handler)
        });
        handler.map_err(|problem| OptionsError::Module { path, problem })
    }

    /// Compiles a module and runs nothing of it. Blocks.
    pub(super) fn compiled(
        options: WasmOptions,
        binary: &[u8],
        env: Vec<(String, String)>,
        engine: Arc<Engine>,
    ) -> Result<Self, ModuleError> {
        let memory_max = usize::try_from(options.memory_bytes.unwrap_or(MEMORY_DEFAULT)).unwrap_or(usize::MAX);
        let compiled = engine.cache.as_ref().map(|cache| cache.mark(binary));
        let program = module::compile(&engine, binary, memory_max)?;
        Ok(Self { options, engine, program, env, memory_max, _compiled: compiled })
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
