//! Worker pools: each runs the attempts that it was given, highest priority first.
//!
//! Bottom up: `attempt` is one try at running a task (`attempt_span` traces it), `priority_gate` decides
//! which priority may start, `run_queue` holds attempts that have not started (a shared queue and a deque
//! per worker for each priority, with stealing), `live` finds attempts by ticket, `idle_workers` parks and wakes workers, `stats` counts,
//! `worker` is the loop of one worker, and `handle` is the pool as the scheduler sees it.
//!
//! Invariant: no worker starts an attempt while one of higher priority is queued in the same pool. An
//! attempt starts when a worker claims it; the start is reported right after.

mod attempt;
mod attempt_span;
mod context;
mod handle;
mod idle_workers;
mod live;
mod priority_gate;
mod report;
mod run_queue;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

pub use attempt::{Assignment, Attempt, Ticket};
pub use context::WorkerContext;
pub use handle::{Batch, Pool};
pub use report::Report;
pub use stats::{PoolStats, WorkerStats};
