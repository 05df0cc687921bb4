//! Scenario `wasm`: WebAssembly guests, compared with wasmtime alone, and the time to stop one.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tonic::Status;
use wasmtime::{Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

use super::end_to_end::{BatchLoad, no_op_load};
use super::latency::{Stops, cancel_tasks, submit};
use super::load::Window;
use super::report::{Report, Row};
use super::server::{Server, config};
use super::settings::Settings;
use crate::cli::server_process::{Result, ScratchDir};
use crate::proto::v1::{Payload, StopMethod, SubmitTaskRequest, payload};

/// Copies its stdin to its stdout.
const ECHO: &[u8] = include_bytes!("guests/echo.wasm");
/// Uses the CPU without end.
const SPIN: &[u8] = include_bytes!("guests/spin.wasm");
/// Memory that an instance leaves to the next, as in the server when the kernel tells which pages it wrote.
const KEPT_BYTES: usize = 1 << 20;
const PAYLOAD: &[u8] = b"{\"a\":1}";

/// Runs guests with wasmtime alone, by the server, and with wasmtime again, in turns; then stops guests.
pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let modules = ScratchDir::new(&settings.directory, false)?;
    let handlers = [("echo", ECHO), ("spin", SPIN)].map(|(name, binary)| handler(modules.path(), name, binary));
    let handlers = handlers.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let cores = std::thread::available_parallelism()?.get();
    let (mut rates, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let before = bare_rate(settings, cores)?;
        let server = Server::start_with_config(settings, &format!("{}{handlers}", config(true, None))).await?;
        rates.push(BatchLoad { task: task("echo"), ..no_op_load() }.run(settings, &server).await?.burst);
        drop(server);
        bare.push(f64::midpoint(before, bare_rate(settings, cores)?));
    }
    let what = format!("guests that copy {} bytes", PAYLOAD.len());
    let row = Row::of_rounds("wasm", &what, rates, "tasks/s").at_least(100_000.0);
    report.add(row.baselines(bare, "wasmtime alone, a thread for each core"));
    stops(settings, report, &handlers, cores).await
}

/// The time to stop a guest that uses the CPU, while no other task runs, and while others use all cores.
async fn stops(settings: &Settings, report: &mut Report, handlers: &str, cores: usize) -> Result<()> {
    let server = Server::start_with_config(settings, &format!("{}{handlers}", config(true, Some(cores + 1)))).await?;
    for (others, target) in [(0, 10.0), (cores, 50.0)] {
        let mut client = server.client().await?;
        for _ in 0..others {
            submit(&mut client, task("spin")).await?;
        }
        let Stops { stop, .. } = cancel_tasks(settings, &server, &task("spin"), StopMethod::Abort).await?;
        let what = format!("guest, cancel → stopped, {others} others");
        report.add(Row::new("wasm", &format!("{what}, p50"), stop.millis(0.5), "ms").lower_is_better());
        report.add(Row::new("wasm", &format!("{what}, p99"), stop.millis(0.99), "ms").at_most(target));
    }
    Ok(())
}

/// The section of a handler whose module is written to the directory.
fn handler(directory: &Path, name: &str, binary: &[u8]) -> Result<String> {
    let module: PathBuf = directory.join(name).with_extension("wasm");
    std::fs::write(&module, binary)?;
    let module = module.display();
    Ok(format!("[[handler]]\nname = \"{name}\"\nrunner = \"wasm\"\nmodule = \"{module}\"\ntimeout = \"1h\"\n"))
}

fn task(handler: &str) -> SubmitTaskRequest {
    let kind = Some(payload::Kind::Data(Bytes::from_static(PAYLOAD)));
    let payload = Some(Payload { kind, ..Payload::default() });
    SubmitTaskRequest { handler: handler.to_owned(), payload, ..SubmitTaskRequest::default() }
}

/// Guests per second without a server.
fn bare_rate(settings: &Settings, threads: usize) -> Result<f64> {
    let mut pool = PoolingAllocationConfig::new();
    pool.linear_memory_keep_resident(KEPT_BYTES).table_keep_resident(KEPT_BYTES);
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let failed = |error: wasmtime::Error| Status::internal(error.to_string());
    let engine = Engine::new(&config).map_err(failed)?;
    let mut linker = Linker::new(&engine);
    add_to_linker_async(&mut linker, |wasi: &mut WasiP1Ctx| wasi).map_err(failed)?;
    let module = Module::from_binary(&engine, ECHO).map_err(failed)?;
    let instance = linker.instantiate_pre(&module).map_err(failed)?;
    let window = Window::after_warm_up(settings.duration / 2);
    let counts = std::thread::scope(|scope| {
        let run = || run_bare(&engine, &instance, window);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a guest panicked")?).collect::<Result<Vec<u64>>>()
    });
    Ok(window.rate(counts?.into_iter().sum()))
}

/// Runs one guest after the other. Returns their number in the window.
fn run_bare(engine: &Engine, instance: &InstancePre<WasiP1Ctx>, window: Window) -> Result<u64> {
    let mut count = 0;
    while !window.has_ended() {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdin(MemoryInputPipe::new(Bytes::from_static(PAYLOAD))).stdout(stdout.clone());
        let mut store = Store::new(engine, wasi.build_p1());
        store.set_epoch_deadline(1);
        let ended = async {
            let instance = instance.instantiate_async(&mut store).await?;
            instance.get_typed_func::<(), ()>(&mut store, "_start")?.call_async(&mut store, ()).await
        };
        ended.now_or_never().ok_or("a guest waited")?.map_err(|error| error.to_string())?;
        if stdout.contents() != PAYLOAD {
            return Err("a guest did not copy its input".into());
        }
        count += u64::from(window.is_open());
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `LINESHAFT_WRITE_GUESTS=1 cargo test --lib bench::wasm` writes them again.
    #[test]
    fn the_guests_are_those_of_the_tests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (name, binary) in [("echo", ECHO), ("spin", SPIN)] {
            let built = wat::parse_file(root.join("tests/wasm/guests").join(name).with_extension("wat")).unwrap();
            if std::env::var_os("LINESHAFT_WRITE_GUESTS").is_some() {
                std::fs::write(root.join("src/cli/bench/guests").join(name).with_extension("wasm"), &built).unwrap();
            } else {
                assert!(built == binary, "{name}");
            }
        }
    }
}
