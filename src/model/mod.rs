//! The domain types of Lineshaft, without I/O. All other modules use them.
//!
//! Names are those of the contract in `proto/`. A value of these types is valid: `api::convert` parses requests
//! into them and refuses what does not fit.

pub mod access;
pub mod api_key;
pub mod arg_pattern;
pub mod batch;
pub mod batch_state;
pub mod cancel;
pub mod catalog;
pub mod clock;
pub mod dependencies;
mod duration_stats;
pub mod error;
pub mod event;
pub mod failure;
pub mod filter;
pub mod id;
pub mod key_file;
pub mod limits;
pub mod memory;
pub mod network;
pub mod output;
mod payload_schema;
pub mod pool;
pub mod priority;
pub mod request;
pub mod resume_token;
mod retention;
pub mod retry;
mod role_names;
pub mod schedule;
pub mod schedule_rule;
pub mod schedule_run;
pub mod schedule_state;
pub mod secret;
pub mod server_clock;
pub mod share;
pub mod spec;
mod submission;
pub mod task;
pub mod task_limit;
pub mod template;
pub mod trace;
mod turns;
pub mod upload;

pub use access::{Grant, NamespaceScope, Role};
pub use arg_pattern::ArgPattern;
pub use batch::{BatchChange, BatchEvent, BatchKey, BatchRef, BatchSpec};
pub use batch_state::{Batch, BatchCounts, BatchFailure, BatchState};
pub use cancel::{CancelMode, CancelReceipt, CancelRequest, StopMethod};
pub use catalog::{Catalog, HandlerSource, HandlerSpec, REMOTE_RUNNER, Registration, SharedCatalog, WASM_RUNNER};
pub use clock::{Clock, SystemClock, Timestamp};
pub use dependencies::{Dependencies, OnParentFailure, Parent};
pub use duration_stats::DurationStats;
pub use error::{Coded, Details, ErrorCode, FieldViolation};
pub use event::{
    Event, HandlerChange, HandlerEvent, InterruptCause, Lease, PoolChange, PoolEvent, TaskChange, TaskEvent,
};
pub use failure::{Failure, FailureReason};
pub use filter::TaskFilter;
pub use id::{BatchId, HandlerName, LimitName, Namespace, PoolName, Revision, ScheduleId, TaskId};
pub use memory::{MemoryAccount, MemoryFull, MemoryPart, Reservation, Share, Whose};
pub use network::{Network, is_public};
pub use output::{Captured, Output, OutputStream, ResourceUsage};
pub use payload_schema::{PayloadSchema, SCHEMA_BYTES_MAX};
pub use pool::{Durability, PoolKind, PoolSettings, PoolSpec};
pub use priority::Priority;
pub use request::{RememberedRequest, RequestKey, RequestName, RequestRetention, SubmissionDigest};
pub use resume_token::{ResumeToken, StoreId};
pub use retention::Retention;
pub use retry::RetryPolicy;
pub use role_names::RoleNames;
pub use schedule::{Overlap, ScheduleChange, ScheduleEvent, ScheduleKey, ScheduleRef, ScheduleSpec};
pub use schedule_rule::{CronRule, DstPolicy, ScheduleRule};
pub use schedule_run::{RunKind, Scheduled};
pub use schedule_state::{Schedule, ScheduleError, ScheduleRun, ScheduleState};
pub use secret::{Secret, SecretUrl};
pub use server_clock::{ClockStep, ServerClock};
pub use share::Sharer;
pub use spec::{Payload, TaskExtras, TaskOptions, TaskSpec};
pub use task::{RecoveredTask, Task, TaskState, TaskStatus};
pub use task_limit::{LimitCause, LimitCharge, LimitHold, LimitId, LimitRule, LimitSource, StartRate, TaskLimit};
pub use template::{Part, Template, UrlTemplate};
pub use trace::{TraceContext, TraceMode};
pub use upload::{ModuleDigest, Upload, UploadSettings};
