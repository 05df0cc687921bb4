//! Decides what runs when: the pure core, the loop that makes its decisions durable, and the handle
//! that the rest of the house holds.
//!
//! `core` decides, `service` commits and only then lets effects out, `hub` tells watchers, `handle`
//! is what callers hold, `patience` how long they wait for it, `views` what it shows them, `keeper` trims the journal behind the projection.

mod core;
mod handle;
mod health;
mod hub;
mod journal_trim;
mod message;
mod observer;
mod refusal;
mod service;
mod timeouts;
mod views;

pub use self::core::{
    Accepted, Counters, DurationStats, Options as CoreOptions, PoolSnapshot, PoolUpdate, PoolView, RecoveryCounts,
    Submitted,
};
pub use crate::pool::{PoolStats, WorkerStats};
pub use crate::runners::OutputBuffer;
pub use crate::store::{Page, PageCursor, PageSize, fold};
pub use handle::Handle;
pub use health::ComponentHealth;
pub use hub::{EventRef, Watch};
pub use refusal::*;
pub use service::{Options, Service};
pub use views::{Cancel, OutputSource, PoolMetrics, Retention, TaskSnapshot};
