//! The state of the service.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use hashbrown::HashMap;

use crate::model::{BatchKey, Event, Revision, TaskId};
use crate::pool::{Attempt, Autoscaler, Pool, Ticket, WorkerContext};
use crate::scheduler::core::{BatchCancel, Core, Deletion, PoolView, RecoveryCounts};
use crate::scheduler::handle::{Handle, HandleInner};
use crate::scheduler::journal_trim::WatchWindow;
use crate::scheduler::message::{Message, Reply};
use crate::scheduler::observer::Observer;
use crate::scheduler::views::{BatchSnapshot, OutputSource};
use crate::store::{StoreError, output_of};
use crate::telemetry::Telemetry;

use super::pending::{ClosedCommit, Pending};

/// The scheduler. `start` builds it; `run` blocks a thread until the server has drained.
pub struct Service {
    pub(super) core: Core,
    /// By index in the core. `None` for a pool that was never configured while this server runs.
    pub(super) pools: Vec<Option<Pool>>,
    /// Durable settings of the pools, by index in the core. `None` for a pool that is not configured.
    pub(super) pool_views: Vec<Option<PoolView>>,
    /// For pools that are added.
    pub(super) context: WorkerContext,
    pub(super) shared: Arc<HandleInner>,
    pub(super) inbox: mpsc::Receiver<Message>,
    /// Is still open: more decisions can join it.
    pub(super) pending: Pending,
    /// Closed commits that are not durable, oldest first. No revision is missing between them and [`Service::pending`].
    pub(super) closed: VecDeque<ClosedCommit>,
    /// How many of them, from the oldest on, are being appended.
    pub(super) in_flight: usize,
    /// Why the store refuses writes, and when to try again.
    pub(super) fault: Option<(StoreError, Instant)>,
    pub(super) drain: Option<Drain>,
    /// By index of a pool that autoscales.
    pub(super) autoscalers: HashMap<u16, Autoscaler>,
    pub(super) deletions: Deletions,
    pub(super) batches: Batches,
    pub(super) watch_window: WatchWindow,
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

/// Requests for batches that take longer than a turn.
#[derive(Default)]
pub(super) struct Batches {
    /// Cancels under way, which take turns. Without a reply if an earlier server has begun them.
    pub cancels: VecDeque<(BatchCancel, Option<Reply<BatchSnapshot>>)>,
    /// Callers that wait for the end of a batch.
    pub waiters: HashMap<BatchKey, Vec<Reply<BatchSnapshot>>>,
}

impl Batches {
    /// Continues the cancels that an earlier server has begun.
    pub fn new(cancels: Vec<BatchCancel>) -> Self {
        Self { cancels: cancels.into_iter().map(|cancel| (cancel, None)).collect(), waiters: HashMap::new() }
    }

    /// Whether a caller waits for a cancel.
    pub fn has_callers(&self) -> bool {
        self.cancels.iter().any(|(_, reply)| reply.is_some())
    }
}

/// A drain that has begun.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    /// When the programs of attempts that still run are killed.
    pub deadline: Instant,
    /// When attempts have to be asked to stop next; `None` once all that run were asked.
    pub stop_at: Option<Instant>,
}

impl Service {
    pub fn handle(&self) -> Handle {
        Handle { inner: self.shared.clone(), sharer: None }
    }

    /// Number of recovered tasks.
    pub fn recovery_counts(&self) -> RecoveryCounts {
        self.core.recovery_counts()
    }

    pub(super) fn live_attempt(&self, task: &TaskId) -> Option<Arc<Attempt>> {
        let ticket = self.core.ticket(task)?;
        self.pool(ticket)?.attempt(ticket)
    }

    /// Output that the store does not have: of a live attempt, or of one whose end is not durable yet. `attempt` 0 means
    /// the current or last one.
    pub(super) fn unstored_output(&self, task: &TaskId, attempt: u32) -> Option<OutputSource> {
        let wanted = |number| attempt == 0 || attempt == number;
        if let Some(live) = self.live_attempt(task).filter(|live| wanted(live.number()))
            && let Some(buffer) = live.output()
        {
            return Some(OutputSource::Live { attempt: live.number(), buffer });
        }
        let closed = self.closed.iter().flat_map(|closed| &closed.commit.events);
        let events = closed.chain(&self.pending.events).rev().filter_map(Event::task);
        events.filter(|event| event.task == *task && wanted(event.attempt)).find_map(|event| {
            output_of(event).map(|output| OutputSource::Stored { attempt: event.attempt, output: output.clone() })
        })
    }

    pub(super) fn pool(&self, ticket: Ticket) -> Option<&Pool> {
        self.pools.get(usize::from(ticket.pool))?.as_ref()
    }

    pub(super) fn pool_mut(&mut self, ticket: Ticket) -> Option<&mut Pool> {
        self.pools.get_mut(usize::from(ticket.pool))?.as_mut()
    }
}
