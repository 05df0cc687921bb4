//! The scheduler's decisions: commands and a time in, events and effects out.
//!
//! Pure: no I/O, no clock, no thread, no randomness. The same commands at the same times give the
//! same events, which is what recovery and the model test rest on. State changes in one place only,
//! `evolve`, which takes an event; a command decides which events happen.

mod apply;
mod attempts;
mod pools;
mod ready_queue;
mod recover;
mod retention;
mod submit;
mod table;
mod timers;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::model::{
    Change, Event, Namespace, PoolName, PoolSpec, Revision, TaskId, TaskState, Timestamp, TraceContext,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::StopCause;

pub use attempts::Finished;
pub use pools::{Counters, DurationStats, PoolLoad, PoolSnapshot, PoolUpdate, PoolView};
pub use recover::RecoveryCounts;
pub use submit::{Accepted, Submitted};

use pools::PoolState;
use ready_queue::Entry;
use retention::Finish;
use table::Table;
use timers::{Due, Timers};

/// What the core is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pools.
    pub pools: Vec<PoolSpec>,
    /// Finished tasks kept per namespace.
    pub retention_count: usize,
    /// How long finished tasks are kept.
    pub retention_age: Duration,
    /// Bytes of payload that unfinished tasks may hold.
    pub payload_bytes_max: u64,
    /// Crashes in a row after which a task is given up.
    pub crashes_max: u32,
}

/// Attempts for one pool, and what is held back from it.
#[derive(Debug)]
pub struct Dispatch {
    /// Index of the pool, in the order of [`Options::pools`] and then of appearance.
    pub pool: u16,
    /// In the order in which they should start.
    pub assignments: Vec<Assignment>,
    /// By priority index: eligible tasks remain that the pool was not given yet.
    pub held_back: [bool; 4],
}

/// A traced task has ended or lost its attempt, and no attempt of this server can tell.
#[derive(Debug)]
pub struct Unattempted {
    /// Place of that in [`Output::events`].
    pub event: usize,
    /// Where it comes from.
    pub trace: Arc<TraceContext>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
}

/// What follows from commands: events to make durable, then effects to release.
#[derive(Debug, Default)]
pub struct Output {
    /// In the order of their revisions.
    pub events: Vec<Event>,
    /// For the pools.
    pub dispatches: Vec<Dispatch>,
    /// Running attempts to be stopped.
    pub stops: Vec<(Ticket, StopCause, Duration)>,
    /// Started attempts that waited for their event to be durable.
    pub confirms: Vec<Ticket>,
    /// Assigned attempts whose task has expired: recall them, and tell [`Core::recalled_expired`].
    pub recalls: Vec<Ticket>,
    /// For traces.
    pub unattempted: Vec<Unattempted>,
}

/// The scheduler's state.
#[derive(Debug)]
pub struct Core {
    options: Options,
    tasks: Table,
    timers: Timers,
    pools: Vec<PoolState>,
    pool_names: HashMap<PoolName, u16>,
    finished: HashMap<Namespace, std::collections::VecDeque<Finish>>,
    revision: Revision,
    fence: u64,
    payload_bytes: u64,
    draining: bool,
}

impl Core {
    /// A core without tasks.
    pub fn new(options: Options) -> Self {
        let mut core = Self {
            tasks: Table::default(),
            timers: Timers::default(),
            pools: Vec::new(),
            pool_names: HashMap::new(),
            finished: HashMap::new(),
            revision: Revision::default(),
            fence: 0,
            payload_bytes: 0,
            draining: false,
            options,
        };
        for spec in core.options.pools.clone() {
            core.add_pool(spec);
        }
        core
    }

    /// The newest event's revision, durable or not.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Does what is due by `now`. To be called before commands of that time.
    pub fn advance(&mut self, now: Timestamp, out: &mut Output) {
        while let Some(timer) = self.timers.pop(now) {
            match timer.due {
                Due::Eligible => {
                    let waits =
                        |slot: &&table::Slot| slot.state == TaskState::Waiting && slot.generation == timer.stamp;
                    if self.tasks.get(timer.slot).as_ref().is_some_and(waits) {
                        self.emit(now, timer.slot, TaskState::Queued, None, Change::Eligible, out);
                    }
                }
                Due::Expiry => self.expire(now, timer, out),
            }
        }
    }

    /// When [`Core::advance`] has something to do next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// No new tasks and no new attempts from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Tasks in the state RUNNING.
    pub fn running(&self) -> u64 {
        self.pools.iter().map(|pool| pool.running).sum()
    }

    /// Tickets of all attempts that have begun.
    pub fn running_tickets(&self) -> Vec<Ticket> {
        let is_running = |slot: &table::Slot| slot.state == TaskState::Running && slot.fence != 0;
        let running = self.tasks.iter().filter(|(_, slot)| is_running(slot));
        running.map(|(index, slot)| Ticket { index, fence: slot.fence }).collect()
    }

    /// The live attempt of a task, assigned or running.
    pub fn ticket(&self, id: &TaskId) -> Option<Ticket> {
        let slot = self.tasks.find(id)?;
        let fence = self.tasks.get(slot)?.fence;
        (fence != 0).then_some(Ticket { index: slot, fence })
    }

    /// The state of a task that is remembered.
    #[cfg(test)]
    pub fn state(&self, id: &TaskId) -> Option<TaskState> {
        Some(self.tasks.get(self.tasks.find(id)?)?.state)
    }

    /// Decides that an event happens, and lets it happen.
    fn emit(
        &mut self,
        at: Timestamp,
        slot: u32,
        state: TaskState,
        attempt: Option<u32>,
        change: Change,
        out: &mut Output,
    ) {
        let Some(task) = self.tasks.get(slot) else { return };
        // It ends without an attempt, or had one that died with the server before.
        let ends = state.is_terminal() && task.state != TaskState::Running;
        let lost = task.fence == 0 && (state.is_terminal() || matches!(change, Change::Interrupted { .. }));
        let untold = ends || lost;
        if let Some(trace) = task.spec.extras().trace.as_ref().filter(|_| untold) {
            let (event, submitted_at) = (out.events.len(), task.submitted_at);
            out.unattempted.push(Unattempted { event, trace: trace.clone(), submitted_at });
        }
        let event = Event {
            revision: self.revision.next(),
            at,
            task: task.spec.id.clone(),
            options: task.spec.options.clone(),
            previous: task.state,
            state,
            attempt: attempt.unwrap_or(task.attempt),
            change,
        };
        self.evolve(slot, &event);
        out.events.push(event);
    }

    /// Holds the counts against the tasks themselves.
    ///
    /// # Panics
    /// When an invariant does not hold, which is a bug of the core.
    #[cfg(test)]
    pub fn check(&self) {
        for (index, pool) in self.pools.iter().enumerate() {
            let own = || self.tasks.iter().filter(|(_, task)| usize::from(task.pool) == index);
            let count = |state| own().filter(|(_, task)| task.state == state).count() as u64;
            assert_eq!(pool.waiting, count(TaskState::Waiting), "waiting tasks are counted");
            assert_eq!(pool.queued, count(TaskState::Queued), "queued tasks are counted");
            assert_eq!(pool.running, count(TaskState::Running), "running tasks are counted");
            let placed: usize = crate::model::Priority::DESCENDING
                .iter()
                .map(|priority| pool.lanes.len(*priority) + pool.assigned[priority.index()])
                .sum();
            assert_eq!(placed as u64, pool.queued, "every queued task is in a lane or assigned");
        }
        let live = self.tasks.iter().filter(|(_, task)| !task.state.is_terminal());
        let bytes: u64 = live.map(|(_, task)| task.spec.payload.len() as u64).sum();
        assert_eq!(self.payload_bytes, bytes, "payloads are counted");
    }

    /// Whether a queue's entry still stands for its task.
    fn is_live(tasks: &Table, entry: Entry) -> bool {
        tasks.get(entry.slot).is_some_and(|task| {
            task.generation == entry.generation && task.state == TaskState::Queued && !task.assigned
        })
    }
}
