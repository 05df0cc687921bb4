//! Runs one attempt over the link to a worker.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::link::{AttemptEvent, Link};
use super::messages::{Assigned, Token};
use crate::model::TaskOptions;
use crate::runners::{BoxFuture, Outcome, Run, RunReport, Runner, StopCause};

/// The slot of an attempt.
pub trait Slot: Send + Sync {
    /// The attempt waits for others and needs no slot.
    fn suspend(&self);
    /// Waits until the attempt has a slot again.
    fn resume(&self) -> BoxFuture<()>;
}

/// Runs an attempt in the worker at the other end of a link.
pub struct RemoteRunner {
    pub link: Arc<Link>,
    pub token: Token,
    pub options: Arc<TaskOptions>,
    pub slot: Arc<dyn Slot>,
    /// Time to stop after the deadline.
    pub grace: Duration,
    /// Memory of a payload that was read from the store.
    pub memory: Option<Arc<OwnedSemaphorePermit>>,
    /// An earlier server has sent the attempt to the worker.
    pub is_adopted: bool,
}

impl Runner for RemoteRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let events = self.begin(&run);
        let (link, token, slot, grace) = (self.link.clone(), self.token, self.slot.clone(), self.grace);
        let (at_most_once, is_adopted) = (self.options.at_most_once, self.is_adopted);
        Box::pin(async move {
            let events = match events {
                Some(events) => events,
                None if is_adopted => return Outcome::WorkerLost.into(),
                // It has not been sent.
                None => return Outcome::Unavailable("the worker has left".into()).into(),
            };
            Watched { link, token, slot, grace, at_most_once, run, events }.end().await
        })
    }
}

impl RemoteRunner {
    fn begin(&self, run: &Run) -> Option<mpsc::UnboundedReceiver<AttemptEvent>> {
        let (output, progress) = (run.output.clone(), run.progress.clone());
        if self.is_adopted {
            return self.link.adopt(self.token, output, progress);
        }
        let assigned = Box::new(Assigned {
            token: self.token,
            task: run.task.clone(),
            options: self.options.clone(),
            attempt: run.attempt,
            payload: run.payload.clone(),
            trace: run.trace.clone(),
            memory: self.memory.clone(),
        });
        self.link.assign(assigned, output, progress)
    }
}

/// An attempt that the worker has, or is about to get.
struct Watched {
    link: Arc<Link>,
    token: Token,
    slot: Arc<dyn Slot>,
    grace: Duration,
    at_most_once: bool,
    run: Run,
    events: mpsc::UnboundedReceiver<AttemptEvent>,
}

impl Watched {
    async fn end(mut self) -> RunReport {
        let stop = self.run.stop.clone();
        // The next stronger cause of a stop that the worker has to hear of.
        let mut awaited = Some(StopCause::Timeout);
        let mut kill_is_due = false;
        let mut resuming: Option<BoxFuture<()>> = None;
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    None => return Outcome::WorkerLost.into(),
                    Some(AttemptEvent::Finished(report)) => return self.checked(report),
                    Some(AttemptEvent::NotAccepted) => {
                        self.link.withdraw(self.token);
                        if self.at_most_once {
                            // It may have begun, and only its acceptance was lost.
                            return Outcome::WorkerLost.into();
                        }
                        return Outcome::Unavailable("the worker has not accepted the attempt in time".into()).into();
                    }
                    Some(AttemptEvent::Suspended) => self.slot.suspend(),
                    Some(AttemptEvent::Resuming) => resuming = Some(self.slot.resume()),
                },
                () = wait_for(resuming.as_mut()) => {
                    resuming = None;
                    self.link.resumed(self.token);
                }
                cause = stop.wait(awaited.unwrap_or(StopCause::Force)), if awaited.is_some() => {
                    if !stop.was_requested() {
                        // The deadline has passed.
                        stop.request(cause, self.grace);
                    }
                    awaited = stronger(cause);
                    kill_is_due = cause != StopCause::Force;
                    self.link.cancel(self.token, cause, stop.time_to_kill());
                }
                () = stop.wait_for_kill(), if kill_is_due => {
                    kill_is_due = false;
                    self.link.cancel(self.token, stop.requested_cause().unwrap_or(StopCause::Timeout), Duration::ZERO);
                }
            }
        }
    }

    fn checked(&self, report: RunReport) -> RunReport {
        // A worker that has to leave may stop an attempt that the server has not asked to stop.
        let is_lost = matches!(report.outcome, Outcome::Stopped(_)) && !self.run.stop.was_requested();
        if is_lost { RunReport { outcome: Outcome::WorkerLost, ..report } } else { report }
    }
}

fn stronger(cause: StopCause) -> Option<StopCause> {
    match cause {
        StopCause::Timeout | StopCause::Drain => Some(StopCause::Cancel),
        StopCause::Cancel => Some(StopCause::Force),
        StopCause::Force => None,
    }
}

async fn wait_for(future: Option<&mut BoxFuture<()>>) {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::played::NoSlot;
    use super::*;
    use crate::runners::fixtures::Attempt;

    #[tokio::test]
    async fn an_attempt_that_was_not_sent_is_not_lost_unless_an_earlier_server_has_sent_it() {
        for (is_adopted, at_most_once) in [(false, false), (false, true), (true, false)] {
            let link = Link::new(Duration::ZERO);
            assert!(link.check(true).is_some(), "the worker is gone");
            let options = TaskOptions { at_most_once, ..TaskOptions::sample() };
            let (token, slot, grace) = (Token(1), Arc::new(NoSlot), Duration::ZERO);
            let runner: Arc<dyn Runner> = Arc::new(RemoteRunner {
                link,
                token,
                options: Arc::new(options),
                slot,
                grace,
                memory: None,
                is_adopted,
            });
            let outcome = Attempt::start(&runner, "").report().await.outcome;
            assert_eq!(matches!(outcome, Outcome::WorkerLost), is_adopted);
            assert_eq!(matches!(outcome, Outcome::Unavailable(_)), !is_adopted);
        }
    }
}
