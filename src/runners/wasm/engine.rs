//! The engine: how modules are compiled, and where their instances get their memory.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{
    Caller, Config, Enabled, Error, InstanceAllocationStrategy, Linker, PoolingAllocationConfig, Store,
    StoreContextMut, UpdateDeadline,
};
use wasmtime_wasi::{I32Exit, p1, p2};

use super::cache::Cache;
use super::guest::GuestState;
use super::limits::{MEMORIES_MAX, TABLE_ELEMENTS_MAX};
use super::ticker::Ticker;

/// Guests at a time. Further attempts wait. Each needs 4 GiB of addresses, but no memory before it uses it.
const GUESTS_MAX: u32 = 1_000;
/// Instances of modules in all components; a component has several.
const INSTANCES_MAX: u32 = 10 * GUESTS_MAX;
/// Most guests have one memory.
const POOLED_MEMORIES_MAX: u32 = 2 * GUESTS_MAX;
/// Bytes that describe an instance; a large program has a record for each of its functions.
const INSTANCE_BYTES_MAX: usize = 8 << 20;
/// Of memory and of tables, set to zero when an instance is gone instead of given back to the kernel and faulted in again,
/// which interrupts the other cores. The two pages with which a small program begins.
const KEPT_BYTES: usize = 128 << 10;
/// The same when the kernel tells which pages were written, so that only those are set to zero: most of what the runtime
/// of a language touches.
const KEPT_BYTES_SCANNED: usize = 1 << 20;
/// Stack of the calls of a guest.
pub(super) const STACK_BYTES: usize = 512 << 10;
/// With the calls of the host that the guest makes.
const FIBER_STACK_BYTES: usize = 2 << 20;
/// Frames of a trap that a failure lists.
const FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Compiles and runs modules. One for all handlers of a server.
pub struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) ticker: Ticker,
    pub(super) cache: Option<Cache>,
    pub(super) modules: Linker<GuestState>,
    pub(super) components: ComponentLinker<GuestState>,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("failed to prepare WebAssembly: {0}")]
    Wasmtime(Error),
    #[error("failed to start the thread `wasm-epoch`: {0}")]
    Thread(io::Error),
}

impl Engine {
    /// Keeps compiled modules in `cache`, if it is given.
    ///
    /// # Errors
    /// When the system lacks what it needs.
    pub fn new(cache: Option<&Path>) -> Result<Self, EngineError> {
        let wasmtime = wasmtime::Engine::new(&config(true)).or_else(|error| {
            // For example under a limit of the address space.
            tracing::warn!(%error, "instances of WebAssembly modules are allocated one by one, which is slower");
            wasmtime::Engine::new(&config(false))
        });
        let wasmtime = wasmtime.map_err(EngineError::Wasmtime)?;
        let (mut modules, mut components) = (Linker::new(&wasmtime), ComponentLinker::new(&wasmtime));
        link(&mut modules, &mut components).map_err(EngineError::Wasmtime)?;
        let ticker = Ticker::start(&wasmtime).map_err(EngineError::Thread)?;
        let cache = cache.and_then(|directory| Cache::open(directory, &wasmtime));
        Ok(Self { wasmtime, ticker, cache, modules, components })
    }

    /// Removes compiled modules that no handler and no attempt uses.
    pub fn remove_unused(&self) {
        if let Some(cache) = &self.cache {
            cache.remove_unused();
        }
    }

    /// A store for one guest. `is_stopped` is asked about every [`INTERVAL`](super::ticker::INTERVAL) while the guest runs; the
    /// guest ends with [`Interrupted`] when it returns true.
    pub(super) fn store(
        &self,
        guest: GuestState,
        is_stopped: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Store<GuestState> {
        let mut store = Store::new(&self.wasmtime, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_: StoreContextMut<'_, GuestState>| {
            if is_stopped() { Err(Interrupted.into()) } else { Ok(UpdateDeadline::Continue(1)) }
        });
        store
    }
}

/// How a guest ends that was told to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

fn config(is_pooled: bool) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.max_wasm_stack(STACK_BYTES).async_stack_size(FIBER_STACK_BYTES);
    config.wasm_backtrace_max_frames(Some(FRAMES_MAX));
    if is_pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    }
    config
}

/// Looks whether the kernel tells which pages of this process were written, which Linux does since 6.7. Call it before
/// [`harden_process`](crate::runners::process::harden_process): a hidden process that is not of root cannot ask for the first
/// time.
pub fn before_hiding() {
    PoolingAllocationConfig::is_pagemap_scan_available();
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(GUESTS_MAX).total_core_instances(INSTANCES_MAX);
    pool.total_memories(POOLED_MEMORIES_MAX).total_tables(INSTANCES_MAX).total_stacks(GUESTS_MAX);
    pool.max_memories_per_module(u32::try_from(MEMORIES_MAX).unwrap_or(1)).max_tables_per_module(10);
    pool.table_elements(TABLE_ELEMENTS_MAX).max_core_instance_size(INSTANCE_BYTES_MAX);
    let kept = if PoolingAllocationConfig::is_pagemap_scan_available() { KEPT_BYTES_SCANNED } else { KEPT_BYTES };
    pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(kept).table_keep_resident(kept);
    pool
}

fn link(modules: &mut Linker<GuestState>, components: &mut ComponentLinker<GuestState>) -> wasmtime::Result<()> {
    p1::add_to_linker_async(modules, |guest| &mut guest.wasi)?;
    // That of the library refuses codes from 126 on, which programs use.
    modules.allow_shadowing(true);
    modules.func_wrap("wasi_snapshot_preview1", "proc_exit", |_: Caller<'_, GuestState>, code: i32| {
        wasmtime::Result::<()>::Err(I32Exit(code).into())
    })?;
    p2::add_to_linker_async(components)
}
