//! A worker for the tests of runners, at the other end of a link.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::link::Ended;
use super::{Assigned, Command, Happened, Link, LinkHost, LinkedAttempt, Start, Token, WorkerReport};
use crate::model::{Failure, FailureReason, OutputStream, Payload, StopMethod};
use crate::runners::{BoxFuture, Outcome, Run, RunReport, Runner, StopSignal};

/// Longer than any test.
const LEASE: Duration = Duration::from_hours(1);
const TOKEN: Token = Token(7);

/// Runs an attempt over a link, as a pool does.
struct PlayedRunner {
    link: Arc<Link<PlayedAttempt>>,
}

#[derive(Clone)]
struct PlayedAttempt {
    run: Arc<Run>,
    ended: Arc<Mutex<Option<oneshot::Sender<RunReport>>>>,
}

impl LinkedAttempt for PlayedAttempt {
    fn token(&self) -> Token {
        TOKEN
    }

    fn at_most_once(&self) -> bool {
        self.run.options.at_most_once
    }

    fn stop(&self) -> &StopSignal {
        &self.run.stop
    }

    fn write_output(&self, stream: OutputStream, data: &[u8]) {
        self.run.output.write(stream, data);
    }

    fn report_progress(&self, fraction: f32, note: &str) {
        (self.run.progress)(fraction, note);
    }
}

struct PlayedHost;

impl LinkHost<PlayedAttempt> for PlayedHost {
    fn grace_of(&self, _: &PlayedAttempt) -> Duration {
        LEASE
    }

    fn ended(&self, ended: Vec<Ended<PlayedAttempt>>) {
        for (attempt, report) in ended {
            let waiting = attempt.ended.lock().take().expect("an attempt ends once");
            // Fails if the test has ended.
            let _ = waiting.send(report);
        }
    }

    fn is_leaving(&self) -> bool {
        false
    }

    fn is_draining(&self) -> bool {
        false
    }
}

impl Runner for PlayedRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let assigned = Assigned {
            token: TOKEN,
            task: run.task.clone(),
            options: run.options.clone(),
            attempt: run.attempt,
            payload: run.payload.clone(),
            trace: run.trace.clone(),
            memory: None,
        };
        let (sender, ended) = oneshot::channel();
        let attempt = PlayedAttempt { run: Arc::new(run), ended: Arc::new(Mutex::new(Some(sender))) };
        PlayedHost.ended(self.link.start(vec![Start { attempt, assigned: Some(Arc::new(assigned)) }]));
        let link = self.link.clone();
        Box::pin(async move {
            tokio::select! {
                report = ended => report.expect("the link ends every attempt"),
                (end, _) = link.drive(&PlayedHost) => panic!("the link has ended: {end:?}"),
            }
        })
    }
}

/// A runner whose worker does what the payload says:
/// - `endless` runs until it is asked to stop;
/// - `stubborn` acknowledges a stop, and ends when it is killed;
/// - `speak` writes output, reports progress, and then runs until it is asked to stop;
/// - `fail` fails, and `vanish` never answers again;
/// - everything else is the result.
pub fn runner() -> Arc<dyn Runner> {
    let link = Link::new(LEASE);
    let stream = link.connect(&[]).expect("a new link").stream;
    tokio::spawn(PlayedWorker { link: link.clone(), stream, payload: bytes::Bytes::new() }.work());
    Arc::new(PlayedRunner { link })
}

struct PlayedWorker {
    link: Arc<Link<PlayedAttempt>>,
    stream: u64,
    payload: bytes::Bytes,
}

impl PlayedWorker {
    async fn work(mut self) {
        loop {
            let mut commands = VecDeque::new();
            poll_fn(|context| {
                self.link.poll_commands(self.stream, context, &mut commands);
                if commands.is_empty() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            for command in commands {
                match command {
                    Command::Assign(assigned) => self.begin(&assigned),
                    Command::Cancel { token, grace, .. } => self.cancel(token, grace),
                    Command::Close(_) => return,
                    _ => {}
                }
            }
        }
    }

    fn begin(&mut self, assigned: &Assigned) {
        let token = assigned.token;
        self.payload = assigned.payload.clone();
        self.report(WorkerReport::Accepted(token));
        match &*self.payload {
            b"endless" | b"stubborn" => {}
            b"speak" => {
                self.report(WorkerReport::Output(token, OutputStream::Stdout, "spoken\n".into()));
                self.report(WorkerReport::Progress(token, 0.5, "halfway".to_owned()));
            }
            b"fail" => self.finish(token, Outcome::Failed(Failure::new(FailureReason::HandlerError, "failed"))),
            b"vanish" => {
                self.link.disconnect(self.stream);
                let another = self.link.connect(&[]).expect("another program with its name, which has no attempts");
                PlayedHost.ended(another.lost);
            }
            _ => {
                let data = self.payload.to_vec().into();
                self.finish(token, Outcome::Completed(Payload { data, ..Payload::default() }));
            }
        }
    }

    fn cancel(&self, token: Token, grace: Duration) {
        self.report(WorkerReport::CancelAcknowledged(token));
        let method = if grace.is_zero() { StopMethod::Abort } else { StopMethod::Token };
        if grace.is_zero() || &*self.payload != b"stubborn" {
            self.finish(token, Outcome::Stopped(method));
        }
    }

    fn finish(&self, token: Token, outcome: Outcome) {
        let report = RunReport {
            cpu_time: Some(Duration::from_millis(5)),
            peak_memory_bytes: Some(1 << 20),
            ..RunReport::from(outcome)
        };
        self.report(WorkerReport::Finished(token, report, None));
        self.link.settle([token]);
    }

    fn report(&self, report: WorkerReport) {
        for happened in self.link.receive(self.stream, vec![report]).into_iter().flatten() {
            if let Happened::Ended(attempt, report) = happened {
                PlayedHost.ended(vec![(attempt, report)]);
            }
        }
    }
}
