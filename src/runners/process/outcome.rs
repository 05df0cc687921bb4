//! What the end of a program means for its attempt.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, LazyLock};

use super::options::ProcessOptions;
use super::received::Received;
use super::reports::RetryReport;
use super::sys::Exit;
use crate::model::{Failure, FailureReason, OutputStream};
use crate::runners::exit_codes::is_permanent;
use crate::runners::{Outcome, OutputBuffer, RunReport};

/// Content type of a result unless another is known. Shared, so that results do not allocate it.
static RESULT_TYPE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("text/plain"));
/// Bytes of stderr that a failure contains.
const DETAIL_BYTES: usize = 2_048;
/// Messages of common programs and runtimes when an allocation fails.
const OUT_OF_MEMORY_MESSAGES: [&str; 6] = [
    "memory allocation of",
    "Cannot allocate memory",
    "out of memory",
    "memory exhausted",
    "std::bad_alloc",
    "MemoryError",
];

/// The attempt is not spent if the server has run out of something. Otherwise it has failed; a retry helps only if the
/// program is being replaced.
pub(super) fn start_failure(action: &str, error: &io::Error) -> Outcome {
    let message = format!("failed to {action}: {error}");
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::EDQUOT) => {
            Outcome::Unavailable(message.into())
        }
        other => {
            let mut failure = Failure::new(FailureReason::HandlerError, message);
            failure.retryable = other == Some(libc::ETXTBSY);
            Outcome::Failed(failure)
        }
    }
}

/// The outcome of a program that has succeeded, but left no file with its result.
pub(super) fn no_result(options: &ProcessOptions, error: &io::Error) -> Outcome {
    let file = options.result_file.as_deref().unwrap_or_default();
    let text = format!("failed to read `{file}`, which has the result: {error}");
    Outcome::Failed(Failure::new(FailureReason::HandlerError, text))
}

/// The outcome of a program that was not stopped.
pub(super) fn of_exit(
    options: &ProcessOptions,
    exit: &Exit,
    output: &OutputBuffer,
    received: Received<'_>,
) -> RunReport {
    if exit.status.success() {
        return result(options, received);
    }
    let detail = output.last_text(OutputStream::Stderr, DETAIL_BYTES);
    let (reason, message) = failure_reason(options, exit, &detail);
    let mut failure = Failure::new(reason, message);
    failure.exit_code = exit.status.code();
    failure.signal = exit.status.signal();
    failure.detail = detail;
    if let Some(error) = received.reports.error {
        failure.message = format!("{error} ({})", failure.message);
    }
    let is_permanent = |code| is_permanent(&options.permanent_exit_codes, &options.retry_exit_codes, code);
    failure.retryable = match received.reports.retry {
        Some(RetryReport::Never) => false,
        Some(RetryReport::After(_)) => true,
        None => failure.retryable && !failure.exit_code.is_some_and(is_permanent),
    };
    if let Some(RetryReport::After(delay)) = received.reports.retry {
        failure.retry_after = Some(delay);
    }
    Outcome::Failed(failure).into()
}

fn result(options: &ProcessOptions, Received { result, reports, .. }: Received<'_>) -> RunReport {
    let content_type = reports.content_type.or_else(|| options.content_type.clone());
    result.into_report(content_type.unwrap_or_else(|| Arc::clone(&RESULT_TYPE)))
}

fn failure_reason(options: &ProcessOptions, exit: &Exit, stderr: &str) -> (FailureReason, String) {
    let limits = &options.limits;
    if let Some(limit) = limits.memory_bytes
        && ran_out_of_memory(exit, limit, stderr)
    {
        return (FailureReason::OutOfMemory, format!("reached the memory limit of {limit} bytes"));
    }
    let Some(signal) = exit.status.signal() else {
        let code = exit.status.code().unwrap_or(-1);
        return (FailureReason::HandlerError, format!("exited with code {code}"));
    };
    // SIGXCPU comes at the limit, plus or minus a tick of the kernel's clock; a process that ignores it is
    // killed.
    let used_up = |limit| signal == libc::SIGXCPU || (signal == libc::SIGKILL && exit.cpu_time.as_secs() >= limit);
    let message = match (signal, limits.cpu_seconds, limits.file_bytes) {
        (_, Some(seconds), _) if used_up(seconds) => {
            format!("reached the CPU time limit of {seconds} s (signal {signal})")
        }
        (libc::SIGXFSZ, _, Some(bytes)) => {
            format!("reached the file size limit of {bytes} bytes (signal {signal})")
        }
        _ => format!("killed by signal {signal}"),
    };
    (FailureReason::Killed, message)
}

/// A limit of the address space makes allocations fail: programs print a message, crash, or both.
fn ran_out_of_memory(exit: &Exit, limit: u64, stderr: &str) -> bool {
    let near_limit = exit.peak_memory_bytes.is_some_and(|peak| peak >= limit / 10 * 8);
    let crashed = matches!(exit.status.signal(), Some(libc::SIGKILL | libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS));
    (crashed && near_limit) || OUT_OF_MEMORY_MESSAGES.iter().any(|message| stderr.contains(message))
}
