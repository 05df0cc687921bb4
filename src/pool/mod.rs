//! Worker pools: each runs the attempts that it was given, highest priority first.
//!
//! Bottom up: `attempt` is one try at running a task (`attempt_span` traces it, `attempt_run` runs it), `parker` lets a driver
//! wait, `run_queue` holds the attempts that have not started and the slots, and decides which attempt gets the next slot,
//! `driver` is what runs attempts and holds a slot meanwhile, `backoff` sets pauses while the server lacks a resource, `live`
//! finds attempts by ticket, `stats` counts, `worker` is the loop of one driver, `remote` does the same for workers in other
//! programs, `handle` is the pool as the scheduler sees it, and `autoscaler` decides how many workers it has.
//!
//! Invariant: no worker starts an attempt while one of higher priority, or an older one of the same priority, is queued
//! in the same pool. An attempt starts when a driver takes it; the start is reported right after.

mod attempt;
mod attempt_run;
mod attempt_span;
mod autoscaler;
mod backoff;
mod context;
mod driver;
mod handle;
#[cfg(test)]
mod interleaving_tests;
mod live;
mod local;
mod parker;
mod remote;
mod report;
mod run_queue;
mod running;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

pub use attempt::{Assignment, Attempt, Ticket};
pub use autoscaler::{Autoscaler, Sample};
pub use context::WorkerContext;
pub use handle::{Batch, Pool};
pub use remote::{RemoteConnection, RemoteWorkers, WeakRemoteWorkers, WorkerInfo};
pub use report::Report;
pub use running::WorkerLink;
pub use stats::{PoolStats, WorkerStats};
