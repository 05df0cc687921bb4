//! The projection in SQLite, the file `projection.db`: one row per task, batch and schedule, the request IDs of submissions,
//! and the last events of pools and handlers.
//!
//! Durable commits wait in a queue in memory. A thread folds them to the last state of each task and writes only this
//! state, in one transaction, so a task that is submitted and deleted within one interval is never written. Commits that do
//! not fit into the queue are read back from the journal.

mod batches;
mod body_check;
mod candidates;
mod entities;
mod handle;
mod index_check;
mod kinds;
mod list;
#[cfg(test)]
mod list_tests;
mod query;
mod queue;
mod recent;
mod requests;
mod rows;
mod schedules;
mod schema;
mod subjects;
mod submission_times;
mod sum;
mod tokens;
mod unwritten;
mod updated_spec;
mod worker;
mod writer;

pub use body_check::verify_bodies;
pub use handle::SqliteProjection;
pub use query::for_each_task;
pub use requests::verify_requests;
pub use schedules::verify_schedules;
pub use schema::{Meta, SCHEMA};
pub use subjects::load_subjects;
pub use tokens::verify_buckets;
