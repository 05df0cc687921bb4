//! What the end of a guest means for its attempt.

use std::io;
use std::sync::{Arc, LazyLock};

use wasmtime::{Error, PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::engine::{Interrupted, STACK_BYTES};
use super::limits::GuestLimits;
use super::options::WasmOptions;
use crate::model::{Failure, FailureReason, OutputStream, StopMethod};
use crate::runners::exit_codes::is_permanent;
use crate::runners::result::ResultBuffer;
use crate::runners::{Outcome, OutputBuffer, RunReport};

/// Content type of a result unless the handler has another. Shared, so that results do not allocate it.
static RESULT_TYPE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("text/plain"));
/// Bytes of stderr that a failure contains.
const DETAIL_BYTES: usize = 2_048;

pub(super) fn of(
    options: &WasmOptions,
    ended: wasmtime::Result<()>,
    limits: &GuestLimits,
    result: ResultBuffer,
    output: &OutputBuffer,
) -> RunReport {
    let error = ended.err();
    if error.as_ref().is_some_and(Error::is::<Interrupted>) {
        return Outcome::Stopped(StopMethod::Abort).into();
    }
    match error {
        Some(error) if !result.is_too_large() && !matches!(error.downcast_ref(), Some(I32Exit(0))) => {
            failed(options, &error, limits, output).into()
        }
        _ => result.into_report(options.content_type.clone().unwrap_or_else(|| Arc::clone(&RESULT_TYPE))),
    }
}

fn failed(options: &WasmOptions, error: &Error, limits: &GuestLimits, output: &OutputBuffer) -> Outcome {
    if let Some(resource) = missing_resource(error) {
        return Outcome::Unavailable(resource.into());
    }
    let (reason, message) = failure_reason(error, limits);
    let mut failure = Failure::new(reason, message);
    failure.exit_code = error.downcast_ref().map(|I32Exit(code)| *code);
    if failure
        .exit_code
        .is_some_and(|code| is_permanent(&options.permanent_exit_codes, &options.retry_exit_codes, code))
    {
        failure.retryable = false;
    }
    failure.detail = detail(error, output);
    Outcome::Failed(failure)
}

/// What the server lacks for a further guest.
fn missing_resource(error: &Error) -> Option<String> {
    if error.is::<PoolConcurrencyLimitError>() {
        return Some(format!("too many WebAssembly guests at a time: {}", error.root_cause()));
    }
    let system = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>())?;
    let is_missing = matches!(system.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE));
    is_missing.then(|| format!("failed to start a WebAssembly guest: {system}"))
}

fn failure_reason(error: &Error, limits: &GuestLimits) -> (FailureReason, String) {
    if let Some(limit) = limits.reached() {
        return (FailureReason::OutOfMemory, limit);
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return (FailureReason::HandlerError, format!("exited with code {code}"));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => {
            (FailureReason::StackOverflow, format!("call stack exhausted; it has {} KiB", STACK_BYTES >> 10))
        }
        Some(trap) => (FailureReason::Panic, trap.to_string()),
        None => (FailureReason::HandlerError, error.root_cause().to_string()),
    }
}

/// The end of stderr, and unless the guest has exited, the functions that were active.
fn detail(error: &Error, output: &OutputBuffer) -> String {
    let mut detail = output.last_text(OutputStream::Stderr, DETAIL_BYTES);
    if !error.is::<I32Exit>()
        && let Some(backtrace) = error.downcast_ref::<WasmBacktrace>()
    {
        if !detail.is_empty() && !detail.ends_with('\n') {
            detail.push('\n');
        }
        detail.push_str(&backtrace.to_string());
    }
    detail
}
