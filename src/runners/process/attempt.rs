//! One attempt of a process handler, from spawn to verdict.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::spawn::{self, Child, Ends};
use super::sys::Exit;
use super::{ATTEMPT_VARIABLE, Host, INSTANCE_VARIABLE, ResultFrom, Settings, TASK_VARIABLE, supervisor};
use crate::model::limits::RESULT_BYTES_MAX;
use crate::model::{Failure, FailureReason, OutputStream, Payload, StopMethod};
use crate::runners::{Ended, Outcome, OutputBuffer, Run, Stop, StopCause};

/// How long the pipes may stay open after the leader has ended, because somebody else holds them.
const PIPES_WAIT: Duration = Duration::from_millis(200);
/// The same after the whole group was killed.
const KILLED_PIPES_WAIT: Duration = Duration::from_millis(50);
/// How long the killed rest of a group may take to die.
const GROUP_WAIT: Duration = Duration::from_millis(500);
/// Bytes of stderr that a failure shows.
const DETAIL_BYTES: usize = 2_048;
/// Bytes of the first read of a pipe, and of later ones when there is much to read.
const READ_BYTES: (usize, usize) = (4 * 1024, 64 * 1024);
/// What programs say when an allocation was refused.
const MEMORY_WORDS: [&str; 6] = [
    "memory allocation of",
    "Cannot allocate memory",
    "out of memory",
    "memory exhausted",
    "std::bad_alloc",
    "MemoryError",
];

/// Runs one attempt to its end.
pub(super) async fn run(settings: Arc<Settings>, run: Run) -> Outcome {
    if !run.args.is_empty() && !settings.options.accepts_args {
        let message = format!("args: has {} arguments, but this handler accepts none", run.args.len());
        return Ended::Failed(Failure::new(FailureReason::InvalidPayload, message)).into();
    }
    let scratch = match settings.options.working_directory {
        Some(_) => None,
        None => match settings.host.directory() {
            Ok(scratch) => Some(scratch),
            Err(error) => return Ended::Failed(not_started("a working directory", &error)).into(),
        },
    };
    let directory = scratch.as_ref().map(|scratch| &*scratch.path).or(settings.options.working_directory.as_deref());
    let mut command = settings.command(&run, directory.unwrap_or(&settings.host.work));
    let (child, ends) = match Child::spawn(&mut command) {
        Ok(spawned) => spawned,
        Err(error) => {
            let program = format!("`{}`", settings.program.display());
            return Ended::Failed(not_started(&program, &error)).into();
        }
    };
    drop(command);
    if let Some(supervisor) = &settings.host.supervisor {
        supervisor.watch(child.pid());
    }
    let kept = match settings.options.result {
        ResultFrom::Stdout(_) => Some(Kept::default()),
        ResultFrom::Nothing => None,
    };
    let mut attempt = Attempt { settings: &settings, run: &run, child, kept, method: None };
    attempt.follow(ends).await;
    attempt.verdict().await
}

/// A process that could not be started. Another try only helps when the machine was at its limits.
fn not_started(what: &str, error: &io::Error) -> Failure {
    let mut failure = Failure::new(FailureReason::HandlerError, format!("failed to start {what}: {error}"));
    failure.retryable = matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::ETXTBSY)
    );
    failure
}

/// Standard output as far as it can be a result.
#[derive(Default)]
struct Kept {
    data: Vec<u8>,
    /// All bytes written, kept or not.
    total: usize,
}

struct Attempt<'a> {
    settings: &'a Settings,
    run: &'a Run,
    child: Child,
    kept: Option<Kept>,
    /// The strongest signal that was sent on behalf of the stop.
    method: Option<StopMethod>,
}

impl Attempt<'_> {
    /// Feeds and reads the process until its leader has ended and the group is killed.
    async fn follow(&mut self, ends: Ends) {
        let Self { settings, run, child, kept, method } = self;
        let Ends { stdin, stdout, stderr, ended } = ends;
        let pipes = async {
            tokio::join!(
                feed(stdin, &run.payload),
                drain(stdout, OutputStream::Stdout, &run.output, kept.as_mut()),
                drain(stderr, OutputStream::Stderr, &run.output, None),
            );
        };
        tokio::pin!(pipes);
        let mut open = true;
        let mut kill_at = None;
        loop {
            tokio::select! {
                biased;
                () = spawn::ended(&ended) => break,
                () = &mut pipes, if open => open = false,
                () = next_signal(&run.stop, *method, kill_at) => {
                    let force = method.is_some() || run.stop.cause() == Some(StopCause::Force);
                    child.signal(if force { Signal::KILL } else { Signal::TERM });
                    *method = Some(if force { StopMethod::SignalKill } else { StopMethod::SignalTerm });
                    kill_at = Some(Instant::now() + run.stop.grace().unwrap_or(settings.options.grace));
                }
            }
        }
        if open {
            open = timeout(PIPES_WAIT, &mut pipes).await.is_err();
        }
        child.signal(Signal::KILL);
        if open && timeout(KILLED_PIPES_WAIT, &mut pipes).await.is_err() {
            // Somebody has left the group and still holds a pipe; only the environment tells who it is.
            kill_strays(&settings.host, run).await;
        }
    }

    /// Takes the exit status, waits until the group is empty, and judges.
    async fn verdict(mut self) -> Outcome {
        if let Some(supervisor) = &self.settings.host.supervisor {
            supervisor.forget(self.child.pid());
        }
        let exit = match self.child.reap() {
            Ok(exit) => exit,
            Err(error) => return Ended::Failed(not_started("waiting for the process", &error)).into(),
        };
        let give_up = Instant::now() + GROUP_WAIT;
        while self.child.group_lives() && Instant::now() < give_up {
            sleep(Duration::from_millis(1)).await;
        }
        let ended = match self.method {
            Some(method) => Ended::Stopped(method),
            None => self.judge(&exit),
        };
        Outcome { ended, cpu_time: Some(exit.cpu_time), peak_memory_bytes: exit.peak_memory_bytes }
    }

    /// What an exit means that nobody here has asked for.
    fn judge(&mut self, exit: &Exit) -> Ended {
        if exit.status.success() {
            return self.result();
        }
        let detail = self.run.output.last_text(OutputStream::Stderr, DETAIL_BYTES);
        let (reason, message) = self.reason(exit, &detail);
        let mut failure = Failure::new(reason, message);
        failure.exit_code = exit.status.code();
        failure.signal = exit.status.signal();
        failure.detail = detail;
        Ended::Failed(failure)
    }

    fn result(&mut self) -> Ended {
        let kept = self.kept.take().unwrap_or_default();
        if kept.total > RESULT_BYTES_MAX {
            let message =
                format!("standard output has {} bytes, a result may have {RESULT_BYTES_MAX} at most", kept.total);
            return Ended::Failed(Failure::new(FailureReason::ResultTooLarge, message));
        }
        let content_type = match &self.settings.options.result {
            ResultFrom::Stdout(content_type) => Arc::clone(content_type),
            ResultFrom::Nothing => Arc::default(),
        };
        Ended::Completed(Payload { data: Bytes::from(kept.data), content_type })
    }

    fn reason(&self, exit: &Exit, stderr: &str) -> (FailureReason, String) {
        let limits = &self.settings.options.limits;
        if let Some(limit) = limits.memory_bytes
            && ran_out_of_memory(exit, limit, stderr)
        {
            return (FailureReason::OutOfMemory, format!("the limit of {limit} bytes of memory was reached"));
        }
        let Some(signal) = exit.status.signal() else {
            let code = exit.status.code().unwrap_or(-1);
            return (FailureReason::HandlerError, format!("exited with code {code}"));
        };
        // SIGXCPU comes at the limit, give or take a tick of the kernel's clock; who ignores it is killed.
        let spent = |limit| signal == libc::SIGXCPU || (signal == libc::SIGKILL && exit.cpu_time.as_secs() >= limit);
        let message = match (signal, limits.cpu_seconds, limits.file_bytes) {
            (_, Some(seconds), _) if spent(seconds) => {
                format!("the limit of {seconds} s of processor time was reached (signal {signal})")
            }
            (libc::SIGXFSZ, _, Some(bytes)) => {
                format!("the limit of {bytes} bytes per file was reached (signal {signal})")
            }
            _ => format!("killed by signal {signal}"),
        };
        (FailureReason::Killed, message)
    }
}

/// Waits for the moment at which the next signal is due: asked first, then forced, then never.
async fn next_signal(stop: &Stop, sent: Option<StopMethod>, kill_at: Option<Instant>) {
    match (sent, kill_at) {
        (None, _) => drop(stop.wait(StopCause::Timeout).await),
        (Some(StopMethod::SignalTerm), Some(kill_at)) => tokio::select! {
            _ = stop.wait(StopCause::Force) => {}
            () = sleep_until(kill_at) => {}
        },
        _ => std::future::pending().await,
    }
}

/// A limit of address space shows as a refused allocation: programs say so, crash, or both.
fn ran_out_of_memory(exit: &Exit, limit: u64, stderr: &str) -> bool {
    let near_limit = exit.peak_memory_bytes.is_some_and(|peak| peak >= limit / 10 * 8);
    let crashed = matches!(exit.status.signal(), Some(libc::SIGKILL | libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS));
    (crashed && near_limit) || MEMORY_WORDS.iter().any(|words| stderr.contains(words))
}

/// Writes the payload. A process need not read it to the end.
async fn feed(stdin: Option<ChildStdin>, payload: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(payload).await;
    }
}

/// Reads one pipe to its end.
async fn drain(mut pipe: impl AsyncRead + Unpin, stream: OutputStream, output: &OutputBuffer, kept: Option<&mut Kept>) {
    let (first, later) = READ_BYTES;
    let mut buffer = Vec::with_capacity(first);
    let mut kept = kept;
    while let Ok(1..) = pipe.read_buf(&mut buffer).await {
        output.write(stream, &buffer);
        if let Some(kept) = kept.as_deref_mut() {
            kept.total += buffer.len();
            let room = RESULT_BYTES_MAX - kept.data.len();
            kept.data.extend_from_slice(&buffer[..room.min(buffer.len())]);
        }
        if buffer.len() == buffer.capacity() && buffer.capacity() < later {
            buffer = Vec::with_capacity(later);
        }
        buffer.clear();
    }
}

/// Kills the processes of this attempt that have left its group.
async fn kill_strays(host: &Host, run: &Run) {
    let marks = [
        format!("{INSTANCE_VARIABLE}={}", host.instance),
        format!("{TASK_VARIABLE}={}", run.task),
        format!("{ATTEMPT_VARIABLE}={}", run.attempt),
    ];
    // It looks at every process of the machine.
    let _ = tokio::task::spawn_blocking(move || supervisor::kill_marked(&marks)).await;
}
