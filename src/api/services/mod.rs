//! The gRPC services: each file or folder implements one service of the contract.

mod artifact_checks;
mod artifact_uploads;
pub mod artifacts;
pub mod batches;
mod decisions;
pub mod handlers;
pub mod health;
pub mod interval;
pub mod keda;
mod parent_results;
pub mod pool_history;
pub mod pools;
mod result_transfers;
mod running_task;
pub mod schedules;
pub mod system;
pub mod tasks;
pub mod workers;
