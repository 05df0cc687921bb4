//! A module or component that is compiled and linked.

use wasmtime::component::Component;
use wasmtime::{Error, InstancePre, Module, ModuleExport, Result, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::guest::GuestState;

/// Of a memory.
const PAGE_BYTES: u64 = 64 << 10;

pub(super) enum Program {
    /// A command of WASI preview 1.
    Module { instance: InstancePre<GuestState>, start: ModuleExport },
    /// A `wasi:cli` component of WASI 0.2.
    Component(CommandPre<GuestState>),
}

/// A program that is not linked yet.
pub(super) enum Compiled {
    Module(Module),
    Component(Component),
}

impl Compiled {
    /// Bytes with which the largest memory of an instance begins; 0 if the modules of a component are not known.
    pub(super) fn initial_memory(&self) -> u64 {
        let required = match self {
            Self::Module(module) => Some(module.resources_required()),
            Self::Component(component) => component.resources_required(),
        };
        let pages = required.and_then(|required| required.max_initial_memory_size).unwrap_or(0);
        pages.saturating_mul(PAGE_BYTES)
    }
}

impl Program {
    /// Runs the guest to its end. Exit codes are errors of the type [`I32Exit`], also 0.
    pub(super) async fn run(&self, store: &mut Store<GuestState>) -> Result<()> {
        match self {
            Self::Module { instance, start } => {
                let instance = instance.instantiate_async(&mut *store).await?;
                let start = instance.get_module_export(&mut *store, start).and_then(wasmtime::Extern::into_func);
                let start = start.ok_or_else(|| Error::msg("`_start` is gone"))?;
                start.typed::<(), ()>(&*store)?.call_async(store, ()).await
            }
            Self::Component(command) => {
                let command = command.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(store).await?.map_err(|()| I32Exit(1).into())
            }
        }
    }

    /// Runs only what comes before the first call: the start functions.
    pub(super) async fn instantiate(&self, store: &mut Store<GuestState>) -> Result<()> {
        match self {
            Self::Module { instance, .. } => instance.instantiate_async(store).await.map(drop),
            Self::Component(command) => command.instantiate_async(store).await.map(drop),
        }
    }
}
