//! Loading a module: from its file to a program that can run, or the reason why it cannot.

use std::fs::File;
use std::io::{self, Read};
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
use super::options::{MODULE_BYTES_MAX, OptionsError, START_TIMEOUT};
use super::program::{Compiled, Program};

/// `\0asm`, a version, and a layer.
const HEADER_BYTES: usize = 8;
const MAGIC: &[u8] = b"\0asm";
const LAYER_OF_COMPONENTS: [u8; 2] = [1, 0];

/// Compiles the file, unless it is in the cache, and tries it. Blocks.
pub(super) fn load(engine: &Engine, path: &Path, memory_max: usize) -> Result<Program, OptionsError> {
    let binary = read(path).map_err(|source| OptionsError::Unreadable { path: path.into(), source })?;
    if binary.len() as u64 > MODULE_BYTES_MAX {
        return Err(OptionsError::TooLarge { path: path.into() });
    }
    if binary.len() < HEADER_BYTES || !binary.starts_with(MAGIC) {
        return Err(OptionsError::NotWasm { path: path.into() });
    }
    let compiled =
        compile(engine, &binary).map_err(|error| OptionsError::Invalid { path: path.into(), reason: text(&error) })?;
    let program = link(engine, compiled, path)?;
    try_start(engine, &program, path, memory_max)?;
    Ok(program)
}

/// At most one byte more than a module may have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut binary = Vec::new();
    File::open(path)?.take(MODULE_BYTES_MAX + 1).read_to_end(&mut binary)?;
    Ok(binary)
}

fn compile(engine: &Engine, binary: &[u8]) -> wasmtime::Result<Compiled> {
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

fn link(engine: &Engine, compiled: Compiled, path: &Path) -> Result<Program, OptionsError> {
    let import = |error: Error| OptionsError::Import { path: path.into(), reason: text(&error) };
    match compiled {
        Compiled::Module(module) => {
            let instance = engine.modules.instantiate_pre(&module).map_err(import)?;
            let start = start_function(&instance).ok_or_else(|| OptionsError::NoStart { path: path.into() })?;
            Ok(Program::Module { instance, start })
        }
        Compiled::Component(component) => {
            let instance = engine.components.instantiate_pre(&component).map_err(import)?;
            let command = CommandPre::new(instance);
            let command = command.map_err(|error| OptionsError::NoRun { path: path.into(), reason: text(&error) })?;
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
fn try_start(engine: &Engine, program: &Program, path: &Path, memory_max: usize) -> Result<(), OptionsError> {
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
    let ended: Result<_, OptionsError> = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("wasm-start".to_owned()).spawn_scoped(scope, instantiate);
        let thread = thread.map_err(OptionsError::Thread)?;
        Ok(thread.join().unwrap_or_else(|_| Err(Error::msg("it made the server panic"))))
    });
    let path = path.to_owned();
    match ended? {
        Ok(()) => Ok(()),
        Err(error) if error.is::<Interrupted>() => Err(OptionsError::StartTimeout { path }),
        Err(_) if store.data().limits.reached().is_some() => Err(OptionsError::Memory { path, bytes: memory_max }),
        Err(error) => Err(OptionsError::Instantiation { path, reason: text(&error) }),
    }
}

/// The causes of an error, on one line.
fn text(error: &Error) -> String {
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect();
    causes.join(": ")
}
