//! Conversion between the protobuf contract and the model.
//!
//! Requests are parsed completely: beyond this module there are no `Option`s that stem from proto3. A request that
//! cannot be parsed is rejected with the path, value and limit of every invalid field.

pub mod batch;
mod dependencies;
pub mod event;
pub mod explain;
pub mod filter;
pub mod handler;
mod invalid_fields;
mod json;
pub mod numbers;
pub mod pool;
pub mod schedule;
pub mod shared_options;
pub mod submit;
mod submit_fields;
mod submit_target;
mod submit_trace;
pub mod system;
pub mod task;
pub mod task_limit;
pub mod time;
pub mod update;
pub mod worker;
pub mod worker_page;

pub use invalid_fields::{InvalidFields, MessagePath};
