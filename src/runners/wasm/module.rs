//! Loading a module: from its bytes to a program that can run, or the reason why it cannot.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tokio::runtime;
use tokio::time::Instant;
use wasmtime::component::Component;
use wasmtime::{Error, ExternType, InstancePre, Module};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::engine::{Engine, Interrupted};
use super::guest::GuestState;
use super::limits::GuestLimits;
use super::options::{ModuleError, OptionsError, START_TIMEOUT};
use super::program::{Compiled, Program};
use crate::model::limits::MODULE_BYTES_MAX;

/// `\0asm`, a version, and a layer.
const HEADER_BYTES: usize = 8;
const MAGIC: &[u8] = b"\0asm";
const LAYER_OF_COMPONENTS: [u8; 2] = [1, 0];

/// At most one byte more than a module may have.
///
/// # Errors
/// [`OptionsError::Unreadable`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, OptionsError> {
    let mut binary = Vec::new();
    let file = File::open(path).map(|file| file.take(MODULE_BYTES_MAX as u64 + 1));
    let read = file.and_then(|mut file| file.read_to_end(&mut binary));
    read.map_err(|source| OptionsError::Unreadable { path: path.into(), source })?;
    Ok(binary)
}

/// Compiles a module, unless it is in the cache, and links it. Runs nothing of it. Blocks.
pub(super) fn compile(engine: &Engine, binary: &[u8], memory_max: usize) -> Result<Program, ModuleError> {
    if binary.len() > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge);
    }
    if binary.len() < HEADER_BYTES || !binary.starts_with(MAGIC) {
        return Err(ModuleError::NotWasm);
    }
    let compiled = compiled(engine, binary).map_err(|error| ModuleError::Invalid(text(&error)))?;
    if compiled.initial_memory() > memory_max as u64 {
        return Err(ModuleError::Memory { bytes: memory_max });
    }
    link(engine, compiled)
}

fn compiled(engine: &Engine, binary: &[u8]) -> wasmtime::Result<Compiled> {
    let is_component = binary[HEADER_BYTES - 2..HEADER_BYTES] == LAYER_OF_COMPONENTS;
    let cached = engine.cache.as_ref().and_then(|cache| cache.load(&engine.wasmtime, binary, is_component));
    if let Some(compiled) = cached {
        return Ok(compiled);
    }
    let compiled = if is_component {
        Compiled::Component(Component::from_binary(&engine.wasmtime, binary)?)
    } else {
        Compiled::Module(Module::from_binary(&engine.wasmtime, binary)?)
    };
    if let Some(cache) = &engine.cache {
        cache.keep(binary, &compiled);
    }
    Ok(compiled)
}

fn link(engine: &Engine, compiled: Compiled) -> Result<Program, ModuleError> {
    let import = |error: Error| ModuleError::Import(text(&error));
    match compiled {
        Compiled::Module(module) => {
            let instance = engine.modules.instantiate_pre(&module).map_err(import)?;
            let start = start_function(&instance).ok_or(ModuleError::NoStart)?;
            Ok(Program::Module { instance, start })
        }
        Compiled::Component(component) => {
            let instance = engine.components.instantiate_pre(&component).map_err(import)?;
            let command = CommandPre::new(instance);
            let command = command.map_err(|error| ModuleError::NoRun(text(&error)))?;
            Ok(Program::Component(command))
        }
    }
}

fn start_function(instance: &InstancePre<GuestState>) -> Option<wasmtime::ModuleExport> {
    let module = instance.module();
    match module.get_export("_start")? {
        ExternType::Func(start) if start.params().len() == 0 && start.results().len() == 0 => {
            module.get_export_index("_start")
        }
        _ => None,
    }
}

/// Makes an instance, on a thread of its own, since start functions are code of the guest.
pub(super) fn try_start(engine: &Engine, program: &Program, memory_max: usize) -> Result<(), ModuleError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let guest = GuestState::new(WasiCtxBuilder::new(), GuestLimits::new(memory_max), false);
    let mut store = engine.store(guest, move || Instant::now() >= deadline);
    let instantiate = || {
        let runtime = runtime::Builder::new_current_thread().enable_time().build().map_err(Error::from)?;
        let _running = engine.ticker.guest();
        runtime.block_on(async {
            let late = |_| Err(Interrupted.into());
            tokio::time::timeout_at(deadline, program.instantiate(&mut store)).await.unwrap_or_else(late)
        })
    };
    let ended: Result<_, ModuleError> = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("wasm-start".to_owned()).spawn_scoped(scope, instantiate);
        let thread = thread.map_err(ModuleError::Thread)?;
        Ok(thread.join().unwrap_or_else(|_| Err(Error::msg("it made the server panic"))))
    });
    match ended? {
        Ok(()) => Ok(()),
        Err(error) if error.is::<Interrupted>() => Err(ModuleError::StartTimeout),
        Err(_) if store.data().limits.reached().is_some() => Err(ModuleError::Memory { bytes: memory_max }),
        Err(error) => Err(ModuleError::Instantiation(text(&error))),
    }
}

/// The causes of an error, on one line.
fn text(error: &Error) -> String {
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect();
    causes.join(": ")
}
