//! The state of the service.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use crate::model::{Event, Priority, Revision, TaskChange, TaskId};
use crate::pool::{Attempt, Batch, Pool, Ticket};
use crate::scheduler::core::{Core, Deletion, PoolView, RecoveryCounts};
use crate::scheduler::handle::{Handle, HandleInner};
use crate::scheduler::message::{Message, PendingReply, Reply};
use crate::scheduler::observer::Observer;
use crate::store::{Commit, StoreError};
use crate::telemetry::Telemetry;

/// The scheduler. `start` builds it; `run` blocks a thread until the server has drained.
pub struct Service {
    pub(super) core: Core,
    /// By index in the core. Pools that only recovered tasks name are missing.
    pub(super) pools: Vec<Pool>,
    /// Durable settings of the configured pools, by index in the core.
    pub(super) pool_views: Vec<PoolView>,
    pub(super) shared: Arc<HandleInner>,
    pub(super) inbox: mpsc::Receiver<Message>,
    /// Waits for the commit in flight.
    pub(super) pending: Pending,
    pub(super) in_flight: Option<(Arc<Commit>, Pending)>,
    /// Why the store refuses writes, and when to try again.
    pub(super) fault: Option<(StoreError, Instant)>,
    pub(super) drain: Option<Drain>,
    pub(super) deletions: Deletions,
    pub(super) watch_window: u64,
    pub(super) telemetry: Telemetry,
    pub(super) observer: Observer,
}

/// Deletions under way.
#[derive(Default)]
pub(super) struct Deletions {
    /// Requests, which take turns.
    pub requests: VecDeque<(Deletion, Reply<(u64, Revision)>)>,
    /// Whether more tasks exceed the retention.
    pub more_due: bool,
}

/// A drain that has begun.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    /// When the programs of attempts that still run are killed.
    pub deadline: Instant,
    /// When attempts have to be asked to stop next; `None` once all that run were asked.
    pub stop_at: Option<Instant>,
}

/// Decisions that are not durable yet, and the effects that wait for them.
#[derive(Default)]
pub(super) struct Pending {
    pub events: Vec<Event>,
    /// By index of the pool: attempts, and by priority whether others are held back.
    pub dispatches: Vec<(u16, Batch, [bool; Priority::COUNT])>,
    pub confirms: Vec<Ticket>,
    pub pool_updates: Vec<PoolUpdated>,
    pub replies: Vec<PendingReply>,
    /// Whether an event other than `Started` is among them.
    pub urgent: bool,
    /// When events that are not urgent were first seen.
    pub since: Option<Instant>,
}

/// A pool whose workers have to follow its new settings.
pub(super) struct PoolUpdated {
    pub pool: u16,
    pub view: PoolView,
    /// `None` if the caller was refused because the store refused the first write.
    pub reply: Option<PendingReply>,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dispatches.is_empty() && self.replies.is_empty()
    }

    pub fn append_events(&mut self, events: &mut Vec<Event>) {
        self.urgent |= events.iter().any(|event| !is_start(event));
        self.events.append(events);
    }
}

fn is_start(event: &Event) -> bool {
    event.task().is_some_and(|event| matches!(event.change, TaskChange::Started { .. }))
}

impl Service {
    pub fn handle(&self) -> Handle {
        Handle { inner: self.shared.clone() }
    }

    /// Number of recovered tasks.
    pub fn recovery_counts(&self) -> RecoveryCounts {
        self.core.recovery_counts()
    }

    pub(super) fn live_attempt(&self, task: &TaskId) -> Option<Arc<Attempt>> {
        let ticket = self.core.ticket(task)?;
        self.pool(ticket)?.attempt(ticket)
    }

    pub(super) fn pool(&self, ticket: Ticket) -> Option<&Pool> {
        self.pools.get(usize::from(ticket.pool))
    }

    pub(super) fn pool_mut(&mut self, ticket: Ticket) -> Option<&mut Pool> {
        self.pools.get_mut(usize::from(ticket.pool))
    }
}
