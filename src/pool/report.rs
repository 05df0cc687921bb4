//! What a pool reports to the scheduler.

use std::sync::Arc;

use crate::model::{Artifacts, HandlerName, Output, PoolName, Reservation, ResourceUsage, Timestamp};
use crate::runners::{Outcome, StopCause};

use super::attempt::{Attempt, Ticket};
use super::running::WorkerLink;

#[derive(Debug)]
pub enum Report {
    /// A worker has started an attempt.
    Started {
        ticket: Ticket,
        /// Qualified name, such as `default/PoolWorker-3`.
        worker: Arc<str>,
        at: Timestamp,
    },
    /// An attempt has ended; nothing of it runs any more.
    Finished {
        attempt: Arc<Attempt>,
        at: Timestamp,
        outcome: Outcome,
        /// Why the attempt was asked to stop, if it was.
        cause: Option<StopCause>,
        usage: Box<ResourceUsage>,
        output: Option<Box<Output>>,
        artifacts: Option<Arc<Artifacts>>,
        /// The link to the remote worker, which waits until the end is durable.
        link: Option<Arc<WorkerLink>>,
        /// That of a large result, until the end is durable.
        memory: Option<Box<Reservation>>,
    },
    /// Starts and ends of attempts of a remote worker, in order.
    Many(Vec<Report>),
    /// Workers of a remote pool have come or gone.
    Slots {
        pool: PoolName,
        total: usize,
        /// By handler that a connected worker offers.
        slots: Vec<(HandlerName, usize)>,
    },
}

/// Receives reports. Must neither block nor call the pool: a worker calls it while it starts an attempt,
/// and `Pool::set_paused` waits for that.
pub type ReportSink = Arc<dyn Fn(Report) + Send + Sync>;
