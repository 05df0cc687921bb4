//! One attempt of a process handler, from starting the program to the report.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::handler::ProcessHandler;
use super::outcome::{self, start_failure};
use super::received::Received;
use super::shim::Shim;
use super::wire::{Ended, KILL, Report, TERMINATE};
use crate::model::{Failure, FailureReason, StopMethod};
use crate::runners::{Outcome, Run, RunReport, StopCause, StopSignal};

/// How long killed processes may take to exit before that is logged.
const KILL_WARNING: Duration = Duration::from_secs(10);

pub(super) async fn run(handler: Arc<ProcessHandler>, run: Run) -> RunReport {
    if let Err(failure) = run.check_args(handler.options.arg_pattern.as_ref()) {
        return Outcome::Failed(failure).into();
    }
    let artifacts = match handler.artifact_directory().await {
        Ok(directory) => directory,
        Err(error) => return start_failure("prepare a directory for artifacts", &error).into(),
    };
    let (message, memory) = match handler.start_message(&run, artifacts.as_ref()).await {
        Ok(message) => message,
        Err(error) => return Outcome::from(error).into(),
    };
    let started = start(&handler, &run, &message).await;
    drop((message, memory));
    let shim = match started {
        Ok(shim) => shim,
        Err(error) => return Outcome::Unavailable(format!("failed to start a process: {error}").into()).into(),
    };
    let mut attempt = Attempt { handler: &handler, run: &run, shim, phase: Phase::Running, method: None };
    let mut received = Received::new(&run, handler.options.result_file.is_some());
    let report = match attempt.drive(&mut received).await {
        Report::Ended(ended) => attempt.report(ended, received),
        Report::NoDirectory(error) => attempt.not_started("prepare a working directory", &error),
        Report::NoProgram(error) => attempt.not_started(&format!("start `{}`", handler.program.display()), &error),
        Report::NoShim(error) => Outcome::Unavailable(format!("failed to start a process: {error}").into()).into(),
        // Only the end of the connection leaves the loop with it.
        Report::ProgramEnded => attempt.lost().await,
    };
    match artifacts {
        Some(directory) if matches!(report.outcome, Outcome::Completed(_)) => {
            match directory.collect(run.artifacts.clone()).await {
                Ok(()) => report,
                Err(error) => RunReport { outcome: Outcome::Failed(error.into()), memory: None, ..report },
            }
        }
        _ => report,
    }
}

/// Lets a shim start the program.
async fn start(handler: &ProcessHandler, run: &Run, message: &[u8]) -> io::Result<Shim> {
    loop {
        let mut shim = handler.host.shim().await?;
        match shim.start(message, &run.payload).await {
            Ok(()) => return Ok(shim),
            // It was killed while it was idle.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            Err(error) => return Err(error),
        }
    }
}

struct Attempt<'a> {
    handler: &'a ProcessHandler,
    run: &'a Run,
    shim: Shim,
    phase: Phase,
    /// The strongest signal sent because a stop was requested.
    method: Option<StopMethod>,
}

#[derive(Clone, Copy)]
enum Phase {
    Running,
    /// SIGTERM was sent.
    Terminated,
    /// The program has ended, but processes that it has started still run and hold the pipes. The shim kills them when the
    /// grace period of the handler ends.
    LeftBehind,
    Killed {
        warn_at: Option<Instant>,
    },
}

/// What a phase waits for.
enum Due {
    Terminate,
    Kill,
    Warn,
}

impl Attempt<'_> {
    /// Collects the output and obeys the stop signal until no process of the attempt is left. Returns
    /// [`Report::ProgramEnded`] if the shim was killed.
    async fn drive(&mut self, received: &mut Received<'_>) -> Report {
        loop {
            let due = due(&self.run.stop, self.phase, self.handler.options.grace);
            tokio::select! {
                biased;
                report = self.shim.report(received) => match report {
                    Ok(Report::ProgramEnded) => self.program_ended(),
                    Ok(report) => return report,
                    Err(_) => return Report::ProgramEnded,
                },
                due = due => self.act(due, received).await,
            }
        }
    }

    /// The processes that are left have time to write the rest of their output.
    fn program_ended(&mut self) {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::LeftBehind;
        }
    }

    async fn act(&mut self, due: Due, received: &mut Received<'_>) {
        match due {
            Due::Terminate => {
                self.shim.order(TERMINATE).await;
                self.phase = Phase::Terminated;
                self.method = Some(StopMethod::SignalTerm);
            }
            Due::Kill => {
                if !matches!(self.phase, Phase::LeftBehind) {
                    self.method = Some(StopMethod::SignalKill);
                }
                received.killed();
                self.kill().await;
            }
            Due::Warn => {
                tracing::warn!("processes do not exit after SIGKILL; the attempt ends when they do");
                self.phase = Phase::Killed { warn_at: None };
            }
        }
    }

    async fn kill(&mut self) {
        self.shim.order(KILL).await;
        self.phase = Phase::Killed { warn_at: Some(Instant::now() + KILL_WARNING) };
    }

    fn report(self, ended: Ended, mut received: Received<'_>) -> RunReport {
        let Ended { exit, output_incomplete, no_result, not_removed } = ended;
        received.finish();
        if let Some(error) = not_removed {
            tracing::warn!(%error, "failed to remove the working directory of an attempt");
        }
        // Work that was completed while the server drains need not run again.
        let completed = exit.status.success() && self.run.stop.requested_cause() == Some(StopCause::Drain);
        let report = match self.method {
            Some(method) if !completed => Outcome::Stopped(method).into(),
            _ => match no_result {
                Some(error) => outcome::no_result(&self.handler.options, &error).into(),
                None => outcome::of_exit(&self.handler.options, &exit, &self.run.output, received),
            },
        };
        self.handler.host.keep(self.shim);
        let (cpu_time, peak_memory_bytes) = (Some(exit.cpu_time), exit.peak_memory_bytes);
        RunReport { cpu_time, peak_memory_bytes, output_incomplete, ..report }
    }

    fn not_started(self, action: &str, error: &io::Error) -> RunReport {
        self.handler.host.keep(self.shim);
        start_failure(action, error).into()
    }

    /// The shim was killed, by the program itself or for lack of memory.
    async fn lost(self) -> RunReport {
        if !self.handler.host.has_supervisor() {
            // Processes of the attempt may be left, so it has not ended. The server ends instead.
            return pending().await;
        }
        let message = "the process that supervises the program was killed";
        let outcome = match self.method {
            Some(_) => Outcome::Stopped(StopMethod::SignalKill),
            None => Outcome::Failed(Failure::new(FailureReason::Killed, message)),
        };
        outcome.into()
    }
}

/// Waits until something is to be done about the processes.
async fn due(stop: &StopSignal, phase: Phase, grace: Duration) -> Due {
    match phase {
        Phase::Running => {
            let cause = stop.wait(StopCause::Timeout).await;
            if !stop.was_requested() {
                // The deadline has passed; the handler's own grace period counts.
                stop.request(cause, grace);
            }
            if stop.kill_is_due() { Due::Kill } else { Due::Terminate }
        }
        Phase::Terminated => {
            stop.wait_for_kill().await;
            Due::Kill
        }
        Phase::LeftBehind => {
            stop.wait(StopCause::Timeout).await;
            Due::Kill
        }
        Phase::Killed { warn_at: Some(warn_at) } => {
            sleep_until(warn_at).await;
            Due::Warn
        }
        Phase::Killed { warn_at: None } => pending().await,
    }
}
