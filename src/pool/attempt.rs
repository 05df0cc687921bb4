//! One try at running a task, shared by the scheduler and the worker that runs it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::model::{OutputStream, Priority, Revision, TaskEvent, TaskSpec, Timestamp, TraceContext};
use crate::runners::{OutputBuffer, StopCause, StopSignal};
use crate::telemetry::metrics::SampledSpan;
use crate::telemetry::scope::{ActiveContext, AttemptName, Scope};
use crate::telemetry::trace::AttemptView;

use super::attempt_span::{self, AttemptSpan};
use crate::runners::sync::{AtomicU8, Mutex, Notify};

/// Identifies an attempt to the scheduler and to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Index of the task in the scheduler's table.
    pub index: u32,
    /// Index of the pool.
    pub pool: u16,
    /// Never reused. A later dispatch has a larger fence.
    pub fence: u64,
}

/// An attempt that the scheduler wants a pool to run.
#[derive(Debug)]
pub struct Assignment {
    pub ticket: Ticket,
    pub spec: Arc<TaskSpec>,
    /// Revision of the submission. It identifies the task in the store, where another one may have its ID.
    pub submission: Revision,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The time from which it could have run.
    pub eligible_at: Timestamp,
    /// After reporting the start, the worker waits for [`Attempt::confirm`] before it runs the handler.
    pub confirm: bool,
    /// `spec` lacks the payload; the worker has to read it from the store.
    pub payload_stored: bool,
    /// The priority with which it starts: that of the task, or a higher one if the task was promoted.
    pub urgency: Priority,
}

const ASSIGNED: u8 = 0;
const STARTED: u8 = 1;
const RECALLED: u8 = 2;

#[derive(Debug)]
pub struct Attempt {
    assignment: Assignment,
    phase: AtomicU8,
    confirmed: Notify,
    stop: Arc<StopSignal>,
    output: OnceLock<Arc<OutputBuffer>>,
    progress: Mutex<(f32, String)>,
    span: OnceLock<AttemptSpan>,
    /// Of a remote worker; see [`SlotState`].
    slot: AtomicU8,
}

/// The slot that a remote worker has for an attempt. Changed only under the lock of the pool's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SlotState {
    /// The attempt has not started.
    None = 0,
    Held = 1,
    /// Returned while the attempt waits for others.
    Suspended = 2,
    /// The attempt has ended.
    Returned = 3,
}

impl Attempt {
    pub fn new(assignment: Assignment) -> Arc<Self> {
        Arc::new(Self {
            assignment,
            phase: AtomicU8::default(),
            confirmed: Notify::default(),
            stop: Arc::default(),
            output: OnceLock::new(),
            progress: Mutex::default(),
            span: OnceLock::new(),
            slot: AtomicU8::default(),
        })
    }

    pub fn ticket(&self) -> Ticket {
        self.assignment.ticket
    }

    pub fn spec(&self) -> &Arc<TaskSpec> {
        &self.assignment.spec
    }

    /// The priority with which it starts.
    pub(super) fn urgency(&self) -> Priority {
        self.assignment.urgency
    }

    /// Revision of the submission.
    pub(super) fn submission(&self) -> Revision {
        self.assignment.submission
    }

    /// 1 for the first attempt.
    pub fn number(&self) -> u32 {
        self.assignment.attempt
    }

    /// The time from which it could have run.
    pub fn eligible_at(&self) -> Timestamp {
        self.assignment.eligible_at
    }

    /// Takes the attempt back: it never starts and is never reported. Returns false if a driver has claimed it.
    pub(super) fn recall(&self) -> bool {
        self.phase.compare_exchange(ASSIGNED, RECALLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn is_recalled(&self) -> bool {
        self.phase.load(Ordering::Acquire) == RECALLED
    }

    /// Claims the attempt for a driver. Returns false if it was recalled.
    pub(super) fn claim(&self) -> bool {
        self.phase.compare_exchange(ASSIGNED, STARTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Lets the attempt run, because its start is durable; see [`Assignment::confirm`].
    pub(super) fn confirm(&self) {
        self.confirmed.notify_one();
    }

    pub(super) fn payload_is_stored(&self) -> bool {
        self.assignment.payload_stored
    }

    pub(super) fn needs_confirmation(&self) -> bool {
        self.assignment.confirm
    }

    /// Waits for [`Attempt::confirm`] if the attempt needs it. Returns false if it was asked to stop first.
    pub(super) async fn wait_for_confirmation(&self) -> bool {
        if !self.assignment.confirm {
            return true;
        }
        tokio::select! {
            biased;
            () = self.confirmed.notified() => true,
            _ = self.stop.wait(StopCause::Timeout) => false,
        }
    }

    pub(super) fn slot(&self) -> SlotState {
        match self.slot.load(Ordering::Relaxed) {
            1 => SlotState::Held,
            2 => SlotState::Suspended,
            3 => SlotState::Returned,
            _ => SlotState::None,
        }
    }

    pub(super) fn set_slot(&self, state: SlotState) {
        self.slot.store(state as u8, Ordering::Relaxed);
    }

    /// Asks the attempt to stop.
    pub(super) fn stop(&self, now: Timestamp, cause: StopCause, grace: Duration) {
        self.stop.request(cause, grace);
        if let Some(span) = self.span.get() {
            span.stop_requested(cause, now);
        }
    }

    pub(super) fn stop_signal(&self) -> &Arc<StopSignal> {
        &self.stop
    }

    /// The output so far; `None` before the attempt has started.
    pub fn output(&self) -> Option<Arc<OutputBuffer>> {
        self.output.get().cloned()
    }

    /// Opens the output. Called before the start is reported, because no later event lets a reader look for it again.
    pub(super) fn open_output(&self) -> Arc<OutputBuffer> {
        self.output.get_or_init(Arc::default).clone()
    }

    /// The progress as a fraction, 0 to 1, and the handler's note.
    pub fn progress(&self) -> (f32, String) {
        self.progress.lock().clone()
    }

    /// Records progress. A note that differs from the last one is also written to stderr.
    pub(super) fn set_progress(&self, fraction: f32, note: &str) {
        let mut progress = self.progress.lock();
        progress.0 = fraction.clamp(0.0, 1.0);
        if progress.1 == note {
            return;
        }
        progress.1.clear();
        progress.1.push_str(note);
        if !note.is_empty() {
            self.open_output().write(OutputStream::Stderr, format!("{note}\n").as_bytes());
        }
    }

    /// Records the worker, starts the attempt's span if traces are exported, and returns the attempt as
    /// the scope of its log lines.
    pub(super) fn start_span(self: &Arc<Self>, worker: &Arc<str>, at: Timestamp) -> Arc<dyn Scope> {
        let spec = self.spec();
        let view = AttemptView {
            task: &spec.id,
            options: &spec.options,
            number: self.number(),
            worker,
            eligible_at: self.eligible_at(),
            at,
        };
        let span = AttemptSpan::start(worker, &view, spec.extras().trace.as_ref());
        // Cannot be set already: an attempt starts once.
        let _ = self.span.set(span);
        self.clone()
    }

    /// The trace context that the handler receives.
    pub(super) fn trace_context(&self) -> Option<Arc<TraceContext>> {
        Some(self.active_context()?.context.clone())
    }

    /// The sampled trace that a histogram may link to.
    pub(super) fn exemplar(&self) -> Option<SampledSpan> {
        let context = self.active_context().map(|active| &active.context).or(self.spec().extras().trace.as_ref())?;
        SampledSpan::sampled(context.trace_id, context.span_id, context.flags)
    }

    /// Ends the span and logs how the attempt ended. `event` is what it did to its task; `None` if a later
    /// attempt has replaced it.
    pub fn record_end(&self, event: Option<&TaskEvent>) {
        if let Some(span) = self.span.get() {
            span.end(event);
        }
        if let (Some(event), Some(attempt)) = (event, self.attempt()) {
            attempt_span::log_end(&attempt, event);
        }
    }
}

impl Scope for Attempt {
    fn active_context(&self) -> Option<&ActiveContext> {
        self.span.get()?.active_context()
    }

    fn attempt(&self) -> Option<AttemptName<'_>> {
        let spec = self.spec();
        Some(AttemptName {
            task: &spec.id,
            number: self.number(),
            pool: spec.options.pool.as_str(),
            worker: self.span.get()?.worker(),
        })
    }
}

#[cfg(test)]
impl Assignment {
    /// An assignment of task `id` with that fence, for tests.
    pub(super) fn sample(
        fence: u64,
        handler: &str,
        id: &str,
        priority: Priority,
        payload: &'static [u8],
        confirm: bool,
    ) -> Self {
        use crate::model::{HandlerName, TaskId, TaskOptions};
        let options = TaskOptions {
            handler: HandlerName::parse(handler).unwrap(),
            priority,
            at_most_once: confirm,
            ..TaskOptions::sample()
        };
        let (id, options) = (TaskId::parse(id).unwrap(), Arc::new(options));
        let spec = TaskSpec { id, options, payload: payload.into(), extras: None };
        Self {
            ticket: Ticket { index: 0, pool: 0, fence },
            spec: Arc::new(spec),
            submission: Revision(1),
            attempt: 1,
            eligible_at: Timestamp::ZERO,
            confirm,
            payload_stored: false,
            urgency: priority,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Assignment, Attempt};
    use crate::model::Priority;

    #[test]
    fn a_new_progress_note_is_kept_and_written_to_stderr() {
        let attempt = Attempt::new(Assignment::sample(1, "h", "t", Priority::Normal, b"", false));
        attempt.set_progress(0.1, "");
        assert!(attempt.output().is_none(), "an empty note is not written");
        for (fraction, note) in [(0.2, "reading"), (0.4, "reading"), (7.0, "writing")] {
            attempt.set_progress(fraction, note);
        }
        assert_eq!(attempt.progress(), (1.0, "writing".to_owned()));
        let written = attempt.output().unwrap().captured().unwrap();
        assert_eq!(written.stderr.head, "reading\nwriting\n");
        assert_eq!(written.stdout.total, 0);
    }
}
