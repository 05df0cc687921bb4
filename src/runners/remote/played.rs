//! A worker for the tests of runners, at the other end of a link.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Assigned, Command, Link, RemoteRunner, Slot, Token, WorkerReport};
use crate::model::{Failure, FailureReason, OutputStream, Payload, StopMethod, TaskOptions};
use crate::runners::{BoxFuture, Outcome, RunReport, Runner};

/// Longer than any test.
const LEASE: Duration = Duration::from_hours(1);

pub struct NoSlot;

impl Slot for NoSlot {
    fn suspend(&self) {}

    fn resume(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
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
    let connected = link.connect(&[]).expect("a new link");
    tokio::spawn(work(link.clone(), connected.commands));
    let (token, options, slot) = (Token(7), Arc::new(TaskOptions::sample()), Arc::new(NoSlot));
    Arc::new(RemoteRunner { link, token, options, slot, grace: LEASE, memory: None, is_adopted: false })
}

async fn work(link: Arc<Link>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut payload = bytes::Bytes::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Assign(assigned) => {
                payload = assigned.payload.clone();
                begin(&link, &assigned);
            }
            Command::Cancel { token, grace, .. } => {
                link.report(WorkerReport::CancelAcknowledged(token));
                let method = if grace.is_zero() { StopMethod::Abort } else { StopMethod::Token };
                if grace.is_zero() || &*payload != b"stubborn" {
                    finish(&link, token, Outcome::Stopped(method));
                }
            }
            _ => {}
        }
    }
}

fn begin(link: &Arc<Link>, assigned: &Assigned) {
    let token = assigned.token;
    link.report(WorkerReport::Accepted(token));
    match &*assigned.payload {
        b"endless" | b"stubborn" => {}
        b"speak" => {
            link.report(WorkerReport::Output(token, OutputStream::Stdout, "spoken\n".into()));
            link.report(WorkerReport::Progress(token, 0.5, "halfway".to_owned()));
        }
        b"fail" => finish(link, token, Outcome::Failed(Failure::new(FailureReason::HandlerError, "failed"))),
        b"vanish" => {
            link.disconnect(1);
            link.connect(&[]).expect("another program with its name, which has no attempts");
        }
        _ => {
            let data = assigned.payload.to_vec().into();
            finish(link, token, Outcome::Completed(Payload { data, ..Payload::default() }));
        }
    }
}

fn finish(link: &Link, token: Token, outcome: Outcome) {
    let report = RunReport {
        cpu_time: Some(Duration::from_millis(5)),
        peak_memory_bytes: Some(1 << 20),
        ..RunReport::from(outcome)
    };
    link.report(WorkerReport::Finished(token, report));
    link.settle(token);
}
