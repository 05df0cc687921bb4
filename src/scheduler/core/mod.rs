//! The scheduler's decisions: commands and a time in; events and effects out.
//!
//! Pure: no I/O, clock, threads or randomness. The same commands at the same times produce the same events;
//! recovery and the model test rely on that. A command decides which events happen; only `apply`, which takes an
//! event, changes the state of tasks.

mod apply;
mod attempts;
mod batch_table;
mod batches;
mod blocked;
mod configuration;
mod decision_log;
mod decisions;
mod dependencies;
mod dependency_table;
mod dispatch;
mod dispatch_queue;
mod dispatch_queues;
mod ended;
mod explain;
mod finished;
mod flow_order;
mod flows;
mod handlers;
mod hash_index;
mod held_tasks;
mod key_queue;
mod limit_list;
mod limit_table;
mod limits;
mod mean;
mod namespace_slots;
mod pool_metrics;
mod pool_override;
mod pool_state;
mod pools;
mod quarantine;
mod ready_queue;
mod recall;
mod recover;
mod remote;
mod requests;
mod resolve_parents;
mod retention;
mod retries;
mod schedule_table;
mod schedules;
mod state;
mod submission;
mod submit;
mod suspects;
mod table;
mod timers;
mod unique_keys;
mod unique_table;
mod update;
mod uploads;

#[cfg(test)]
mod configuration_tests;
#[cfg(test)]
mod dependencies_tests;
#[cfg(test)]
mod epoch_tests;
#[cfg(test)]
mod explain_tests;
#[cfg(test)]
mod handlers_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod pools_tests;
#[cfg(test)]
mod promotion_tests;
#[cfg(test)]
mod quarantine_tests;
#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod requests_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod slot_time_tests;
#[cfg(test)]
mod staleness_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unique_keys_tests;
#[cfg(test)]
mod update_tests;
#[cfg(test)]
mod uploads_tests;

pub use attempts::AttemptEnd;
pub use batches::{BatchCancel, BatchFilter, BatchPage};
pub use decision_log::{Decision, DecisionFilter, DecisionPage, DecisionReason};
pub use decisions::{Adoption, Decisions, Dispatch, Unattempted};
pub use dependencies::UnfinishedParents;
pub use explain::{Blocker, Estimate, Explanation, Position};
pub use limit_list::{LimitFilter, LimitPage, LimitView};
pub use pool_metrics::{PoolLoad, PoolSnapshot};
pub use pool_state::PoolView;
pub use pools::PoolUpdate;
pub use ready_queue::Rivals;
pub use recover::RecoveryCounts;
pub use retention::Deletion;
pub use schedules::{ScheduleFilter, SchedulePage, ScheduleUpdate};
pub use state::{Core, CoreOptions};
pub use submission::{Accepted, StoredIds, Submission, Submitted, Undecided, Verdict};
pub use uploads::NewUpload;
