//! One attempt of a process handler, from spawning the process to the report.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::time::{Instant, sleep, timeout};

use super::child::{Child, Streams, wait_for_exit};
use super::environment::{ATTEMPT_VARIABLE, INSTANCE_VARIABLE, TASK_VARIABLE};
use super::handler::ProcessHandler;
use super::host::Host;
use super::options::ResultSource;
use super::supervisor;
use super::sys::Exit;
use crate::model::limits::RESULT_BYTES_MAX;
use crate::model::{Failure, FailureReason, OutputStream, Payload, StopMethod};
use crate::runners::{Outcome, OutputBuffer, Run, RunReport, StopCause, StopSignal};

/// How long to read on after the group leader has ended, in case another process holds the pipes.
const PIPES_TIMEOUT: Duration = Duration::from_millis(200);
/// The same after the whole group was killed.
const KILLED_PIPES_TIMEOUT: Duration = Duration::from_millis(50);
/// How long to wait for the killed processes of a group to disappear.
const GROUP_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes of stderr that a failure contains.
const DETAIL_BYTES: usize = 2_048;
/// Buffer sizes of the first read of a pipe, and of later reads once the first buffer was filled.
const READ_BYTES: (usize, usize) = (4 * 1024, 64 * 1024);
/// Messages of common programs and runtimes when an allocation fails.
const OUT_OF_MEMORY_MESSAGES: [&str; 6] = [
    "memory allocation of",
    "Cannot allocate memory",
    "out of memory",
    "memory exhausted",
    "std::bad_alloc",
    "MemoryError",
];

pub(super) async fn run(handler: Arc<ProcessHandler>, run: Run) -> RunReport {
    if !run.args.is_empty() && !handler.options.accepts_args {
        let message = format!("`args` has {} arguments, but this handler accepts none", run.args.len());
        return Outcome::Failed(Failure::new(FailureReason::InvalidPayload, message)).into();
    }
    let own_directory = match handler.options.working_directory {
        Some(_) => None,
        None => match handler.host.attempt_directory() {
            Ok(directory) => Some(directory),
            Err(error) => return start_failure("create a working directory", &error).into(),
        },
    };
    let directory = own_directory.as_ref().map(|directory| &*directory.path);
    let directory = directory.or(handler.options.working_directory.as_deref()).unwrap_or(&handler.host.work);
    let mut command = handler.command(&run, directory);
    let (child, streams) = match Child::spawn(&mut command) {
        Ok(spawned) => spawned,
        Err(error) => {
            let action = format!("start `{}`", handler.program.display());
            return start_failure(&action, &error).into();
        }
    };
    drop(command);
    if let Some(supervisor) = &handler.host.supervisor {
        supervisor.watch(child.pid());
    }
    let stdout = match handler.options.result {
        ResultSource::Stdout(_) => Some(ResultBuffer::default()),
        ResultSource::None => None,
    };
    let mut attempt = Attempt { handler: &handler, run: &run, child, stdout, method: None };
    attempt.drive(streams).await;
    attempt.report().await
}

/// The attempt is not spent if the server has run out of something. Otherwise it has failed; a retry helps only if the
/// program is being replaced.
fn start_failure(action: &str, error: &io::Error) -> Outcome {
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

/// Standard output, up to the largest size of a result.
#[derive(Default)]
struct ResultBuffer {
    data: Vec<u8>,
    /// Bytes written, kept or not.
    total: usize,
}

struct Attempt<'a> {
    handler: &'a ProcessHandler,
    run: &'a Run,
    child: Child,
    stdout: Option<ResultBuffer>,
    /// The strongest signal sent because a stop was requested.
    method: Option<StopMethod>,
}

impl Attempt<'_> {
    /// Writes the payload and reads the output until the group leader has ended; then kills the group.
    async fn drive(&mut self, streams: Streams) {
        let Self { handler, run, child, stdout: result, method } = self;
        let Streams { stdin, stdout, stderr, exit } = streams;
        let pipes = async {
            tokio::join!(
                write_payload(stdin, &run.payload),
                read_output(stdout, OutputStream::Stdout, &run.output, result.as_mut()),
                read_output(stderr, OutputStream::Stderr, &run.output, None),
            );
        };
        tokio::pin!(pipes);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                () = wait_for_exit(&exit) => break,
                () = &mut pipes, if open => open = false,
                () = next_signal(&run.stop, *method) => {
                    if !run.stop.was_requested() {
                        // The deadline has passed.
                        run.stop.request(StopCause::Timeout, handler.options.grace);
                    }
                    let force = method.is_some() || run.stop.kill_is_due();
                    child.signal(if force { Signal::KILL } else { Signal::TERM });
                    *method = Some(if force { StopMethod::SignalKill } else { StopMethod::SignalTerm });
                }
            }
        }
        if open {
            open = timeout(PIPES_TIMEOUT, &mut pipes).await.is_err();
        }
        child.signal(Signal::KILL);
        if open && timeout(KILLED_PIPES_TIMEOUT, &mut pipes).await.is_err() {
            // A process that has left the group still holds a pipe; it can be found by its environment only.
            kill_escaped_processes(&handler.host, run).await;
        }
    }

    /// Reaps the leader, waits until the group is empty, and decides the outcome.
    async fn report(mut self) -> RunReport {
        if let Some(supervisor) = &self.handler.host.supervisor {
            supervisor.unwatch(self.child.pid());
        }
        let exit = match self.child.reap() {
            Ok(exit) => exit,
            Err(error) => {
                let message = format!("failed to wait for the process: {error}");
                return Outcome::Failed(Failure::new(FailureReason::HandlerError, message)).into();
            }
        };
        let deadline = Instant::now() + GROUP_TIMEOUT;
        while self.child.group_exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
        let outcome = match self.method {
            // It has finished its work in its grace period.
            Some(_) if exit.status.success() && self.run.stop.requested_cause() == Some(StopCause::Drain) => {
                self.result()
            }
            Some(method) => Outcome::Stopped(method),
            None => self.outcome(&exit),
        };
        RunReport { outcome, cpu_time: Some(exit.cpu_time), peak_memory_bytes: exit.peak_memory_bytes }
    }

    /// The outcome of a process that was not stopped.
    fn outcome(&mut self, exit: &Exit) -> Outcome {
        if exit.status.success() {
            return self.result();
        }
        let detail = self.run.output.last_text(OutputStream::Stderr, DETAIL_BYTES);
        let (reason, message) = self.failure_reason(exit, &detail);
        let mut failure = Failure::new(reason, message);
        failure.exit_code = exit.status.code();
        failure.signal = exit.status.signal();
        failure.detail = detail;
        Outcome::Failed(failure)
    }

    fn result(&mut self) -> Outcome {
        let stdout = self.stdout.take().unwrap_or_default();
        if stdout.total > RESULT_BYTES_MAX {
            let message = format!("result has {} bytes, at most {RESULT_BYTES_MAX} are allowed", stdout.total);
            return Outcome::Failed(Failure::new(FailureReason::ResultTooLarge, message));
        }
        let content_type = match &self.handler.options.result {
            ResultSource::Stdout(content_type) => Arc::clone(content_type),
            ResultSource::None => Arc::default(),
        };
        Outcome::Completed(Payload { data: Bytes::from(stdout.data), content_type })
    }

    fn failure_reason(&self, exit: &Exit, stderr: &str) -> (FailureReason, String) {
        let limits = &self.handler.options.limits;
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
}

/// Waits until the next signal is due: SIGTERM, then SIGKILL, then none.
async fn next_signal(stop: &StopSignal, sent: Option<StopMethod>) {
    match sent {
        None => drop(stop.wait(StopCause::Timeout).await),
        Some(StopMethod::SignalTerm) => stop.wait_for_kill().await,
        _ => std::future::pending().await,
    }
}

/// A limit of the address space makes allocations fail: programs print a message, crash, or both.
fn ran_out_of_memory(exit: &Exit, limit: u64, stderr: &str) -> bool {
    let near_limit = exit.peak_memory_bytes.is_some_and(|peak| peak >= limit / 10 * 8);
    let crashed = matches!(exit.status.signal(), Some(libc::SIGKILL | libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS));
    (crashed && near_limit) || OUT_OF_MEMORY_MESSAGES.iter().any(|message| stderr.contains(message))
}

/// Ignores errors, because a process need not read its payload.
async fn write_payload(stdin: Option<ChildStdin>, payload: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(payload).await;
    }
}

/// Reads one pipe to its end.
async fn read_output(
    mut pipe: impl AsyncRead + Unpin,
    stream: OutputStream,
    output: &OutputBuffer,
    mut result: Option<&mut ResultBuffer>,
) {
    let (first, later) = READ_BYTES;
    let mut buffer = Vec::with_capacity(first);
    while let Ok(1..) = pipe.read_buf(&mut buffer).await {
        output.write(stream, &buffer);
        if let Some(result) = result.as_deref_mut() {
            result.total += buffer.len();
            let room = RESULT_BYTES_MAX - result.data.len();
            result.data.extend_from_slice(&buffer[..room.min(buffer.len())]);
        }
        if buffer.len() == buffer.capacity() && buffer.capacity() < later {
            buffer = Vec::with_capacity(later);
        }
        buffer.clear();
    }
}

/// Kills the processes of this attempt that have left its group.
async fn kill_escaped_processes(host: &Host, run: &Run) {
    let marks = [
        format!("{INSTANCE_VARIABLE}={}", host.instance),
        format!("{TASK_VARIABLE}={}", run.task),
        format!("{ATTEMPT_VARIABLE}={}", run.attempt),
    ];
    // Blocking, because it reads the environment of every process of the machine.
    let _ = tokio::task::spawn_blocking(move || supervisor::kill_marked(&marks)).await;
}
