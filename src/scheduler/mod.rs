//! Decides what runs when: the pure core, the loop that makes its decisions durable, and the handle
//! that the rest of the house holds.
//!
//! `core` decides, `service` commits and only then lets effects out, `hub` tells watchers, `handle`
//! is what callers see, `keeper` trims the journal behind the projection.

mod core;
mod handle;
mod hub;
mod keeper;
mod observer;
mod refusal;
mod requests;
mod service;

pub use self::core::{Accepted, Options as CoreOptions, PoolUpdate, PoolView, Recovered, Submitted, Times};
pub use crate::pool::WorkerStats;
pub use crate::runners::OutputBuffer;
pub use crate::store::{Page, PageCursor, PageSize, fold};
pub use handle::{Cancel, ComponentHealth, Found, Handle, OutputSource, PoolMetrics, RetentionView};
pub use hub::{EventRef, Watch};
pub use refusal::*;
pub use service::{Options, Service};
