//! One attempt of a WebAssembly handler.

use super::cpu_clock::thread_cpu_time;
use super::engine::Interrupted;
use super::handler::WasmHandler;
use super::outcome;
use super::streams::ResultStream;
use crate::model::StopMethod;
use crate::runners::{Outcome, Run, RunReport, StopCause};

/// Runs the guest inside the polls of this future, on the worker's own thread.
pub(super) async fn run(handler: &WasmHandler, run: Run) -> RunReport {
    if let Err(failure) = run.check_args(handler.options.arg_pattern.as_ref()) {
        return Outcome::Failed(failure).into();
    }
    if run.stop.cause().is_some() {
        return Outcome::Stopped(StopMethod::Abort).into();
    }
    let started = thread_cpu_time();
    let result = ResultStream::new(run.result_memory.clone());
    let mut store = handler.guest(&run, &result);
    let running = handler.engine.ticker.guest();
    let ended = tokio::select! {
        biased;
        ended = handler.program.run(&mut store) => ended,
        // The guest waits in a call of the host.
        _ = run.stop.wait(StopCause::Timeout) => Err(Interrupted.into()),
    };
    drop(running);
    let limits = store.into_data().limits;
    RunReport {
        cpu_time: Some(thread_cpu_time().saturating_sub(started)),
        peak_memory_bytes: Some(limits.memory_used() as u64),
        ..outcome::of(&handler.options, ended, &limits, result.take(), &run.output)
    }
}
