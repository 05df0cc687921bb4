//! What a pool reports to the scheduler.

use std::sync::Arc;

use crate::model::{Output, ResourceUsage, Timestamp};
use crate::runners::{Outcome, StopCause};

use super::attempt::{Attempt, Ticket};

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
    },
}

/// Receives reports. Must neither block nor call the pool: a worker calls it while it starts an attempt,
/// and `Pool::set_paused` waits for that.
pub type ReportSink = Arc<dyn Fn(Report) + Send + Sync>;
