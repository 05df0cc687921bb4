//! Decides which task runs when.
//!
//! `core` makes the decisions and is pure. `service` is the loop around it: it makes the events of the core
//! durable and only then releases effects. Callers use a [`Handle`]: its commands and some queries are messages
//! to the loop (`message`), submissions after a look at the store (`submissions`, `request_lookup`), uploads after their module is compiled (`uploads`), other queries read the projection (`queries`) within time limits (`timeouts`).
//! `hub` publishes durable events to the watchers that they may concern (`watch_index`), and `watch` finds those of one watcher:
//! old ones in the journal (`journal_reads`), where `journal_trim` deletes them.

mod batches;
mod core;
mod handle;
mod health;
mod hub;
mod interner;
mod journal_reads;
mod journal_trim;
mod message;
mod observer;
mod queries;
mod refusal;
mod request_lookup;
mod schedules;
mod service;
mod submissions;
mod timeouts;
mod uploads;
mod views;
mod watch;
mod watch_index;

pub use self::core::{
    Accepted, BatchFilter, Blocker, CoreOptions, Decision, DecisionFilter, DecisionReason, Estimate, Explanation,
    LimitFilter, LimitView, NewUpload, PoolSnapshot, PoolUpdate, PoolView, Position, RecoveryCounts, Rivals,
    ScheduleFilter, ScheduleUpdate, Submitted, UnfinishedParents,
};
pub use crate::pool::{RemoteConnection, WorkerInfo, WorkerStats};
pub use crate::runners::remote::{Assigned, Chunk, CloseReason, Command, Polled, Token, WorkerReport};
pub use crate::runners::{Outcome, OutputBuffer, RunReport, StopCause};
pub use crate::store::{Page, PageCursor, PageSize, fold};
pub use handle::Handle;
pub use health::ComponentHealth;
pub use journal_trim::WatchWindow;
pub use refusal::*;
pub use service::{Options, Recovery, Service};
pub use views::{
    BatchSnapshot, CancelBatchCommand, CancelCommand, Configuration, OutputSource, PoolMetrics, Resources, TaskParts,
    TaskSnapshot,
};
pub use watch::{EventRef, Watch};
