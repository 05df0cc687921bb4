//! One try at running a task, as the scheduler and the worker that runs it share it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::{OutputStream, TaskSpec, Timestamp};
use crate::runners::{OutputBuffer, Stop, StopCause};

use super::scope::Begun;

/// Names an attempt to the scheduler: the task's place, and a fence that no other attempt has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Index of the task.
    pub index: u32,
    /// Unique per attempt.
    pub fence: u64,
}

/// What the scheduler wants run.
#[derive(Debug)]
pub struct Assignment {
    /// Its name.
    pub ticket: Ticket,
    /// The task.
    pub spec: Arc<TaskSpec>,
    /// 1 for the first try.
    pub attempt: u32,
    /// Since when it could have run.
    pub eligible_at: Timestamp,
    /// After its start is reported, wait for [`Attempt::confirm`] before running.
    pub confirm: bool,
    /// The payload of `spec` is missing and has to be asked for.
    pub payload_stored: bool,
}

const ASSIGNED: u8 = 0;
const BEGUN: u8 = 1;
const RECALLED: u8 = 2;

/// An attempt on its way through a pool.
#[derive(Debug)]
pub struct Attempt {
    assignment: Assignment,
    phase: AtomicU8,
    confirmed: Notify,
    stop: Arc<Stop>,
    output: OnceLock<Arc<OutputBuffer>>,
    progress: Mutex<(f32, String)>,
    begun: OnceLock<Begun>,
}

impl Attempt {
    /// An attempt that has not begun.
    pub fn new(assignment: Assignment) -> Arc<Self> {
        Arc::new(Self {
            assignment,
            phase: AtomicU8::new(ASSIGNED),
            confirmed: Notify::new(),
            stop: Arc::default(),
            output: OnceLock::new(),
            progress: Mutex::default(),
            begun: OnceLock::new(),
        })
    }

    /// Its name.
    pub fn ticket(&self) -> Ticket {
        self.assignment.ticket
    }

    /// The task.
    pub fn spec(&self) -> &Arc<TaskSpec> {
        &self.assignment.spec
    }

    /// 1 for the first try.
    pub fn number(&self) -> u32 {
        self.assignment.attempt
    }

    /// Since when it could have run.
    pub fn eligible_at(&self) -> Timestamp {
        self.assignment.eligible_at
    }

    /// Takes the attempt back. True: it will never begin and never be reported.
    pub fn recall(&self) -> bool {
        let won = self.phase.compare_exchange(ASSIGNED, RECALLED, Ordering::AcqRel, Ordering::Acquire);
        won.is_ok() || won == Err(RECALLED)
    }

    /// Claims the attempt for a worker. False: it was recalled.
    pub(super) fn begin(&self) -> bool {
        self.phase.compare_exchange(ASSIGNED, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Its start is durable; see [`Assignment::confirm`].
    pub fn confirm(&self) {
        self.confirmed.notify_one();
    }

    pub(super) fn payload_is_stored(&self) -> bool {
        self.assignment.payload_stored
    }

    pub(super) fn wants_confirmation(&self) -> bool {
        self.assignment.confirm
    }

    /// Waits for [`Attempt::confirm`] where that is wanted. False: it was told to stop meanwhile.
    pub(super) async fn confirmed(&self) -> bool {
        if !self.assignment.confirm {
            return true;
        }
        tokio::select! {
            biased;
            () = self.confirmed.notified() => true,
            _ = self.stop.wait(StopCause::Timeout) => false,
        }
    }

    /// Tells the attempt to end.
    pub fn stop(&self, cause: StopCause, grace: Duration) {
        self.stop.tell(cause, grace);
        self.note_stop(cause);
    }

    pub(super) fn begun(&self) -> &OnceLock<Begun> {
        &self.begun
    }

    pub(super) fn stop_signal(&self) -> &Arc<Stop> {
        &self.stop
    }

    /// What it has written, once it has begun.
    pub fn output(&self) -> Option<Arc<OutputBuffer>> {
        self.output.get().cloned()
    }

    pub(super) fn open_output(&self) -> Arc<OutputBuffer> {
        self.output.get_or_init(Arc::default).clone()
    }

    /// How far it is, 0 to 1, and what it is doing.
    pub fn progress(&self) -> (f32, String) {
        self.progress.lock().clone()
    }

    /// A note that says something new is also a line of its log.
    pub(super) fn set_progress(&self, share: f32, note: &str) {
        let mut progress = self.progress.lock();
        progress.0 = share.clamp(0.0, 1.0);
        if progress.1 == note {
            return;
        }
        progress.1.clear();
        progress.1.push_str(note);
        if !note.is_empty() {
            self.open_output().write(OutputStream::Stderr, format!("{note}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Priority;
    use crate::pool::tests::attempt;

    #[test]
    fn a_note_of_progress_is_shown_and_is_a_line_of_the_log_when_it_is_new() {
        let attempt = attempt(1, "h", "t", Priority::Normal, b"", false);
        attempt.set_progress(0.1, "");
        assert!(attempt.output().is_none(), "nobody has said anything");
        for (share, note) in [(0.2, "reads"), (0.4, "reads"), (7.0, "writes")] {
            attempt.set_progress(share, note);
        }
        assert_eq!(attempt.progress(), (1.0, "writes".to_owned()));
        let written = attempt.output().unwrap().captured().unwrap();
        assert_eq!(written.stderr.head, "reads\nwrites\n");
        assert_eq!(written.stdout.total, 0);
    }
}
