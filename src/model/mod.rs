//! The nouns of Lineshaft, free of I/O: everything else speaks in these types.
//!
//! Names are those of the contract in `proto/`; a value of these types is already valid, because
//! the edge parses instead of checking (`api::convert`).

pub mod access;
pub mod catalog;
pub mod clock;
pub mod error;
pub mod event;
pub mod failure;
pub mod filter;
pub mod id;
pub mod limits;
pub mod pool;
pub mod priority;
pub mod retry;
pub mod task;
pub mod token;
pub mod trace;

pub use access::{Grant, Reach, Role};
pub use catalog::{Catalog, HandlerSpec};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{Coded, Details, ErrorCode, FieldViolation};
pub use event::{Change, Event, InterruptCause};
pub use failure::{Failure, FailureReason};
pub use filter::TaskFilter;
pub use id::{BatchId, HandlerName, Namespace, PoolName, Revision, TaskId};
pub use pool::{Durability, PoolKind, PoolSpec};
pub use priority::Priority;
pub use retry::RetryPolicy;
pub use task::{
    CancelMode, CancelReceipt, CancelRequest, Captured, Output, OutputStream, Payload, ResourceUsage, Standing,
    StopMethod, Task, TaskExtras, TaskOptions, TaskSpec, TaskState, TaskStatus,
};
pub use trace::{RemoteSpan, TraceContext, TraceMode};
