//! Tests of the whole store.

mod backup;
mod batches;
mod conformance;
mod corruption;
pub mod faulty;
pub mod fixtures;
mod handlers;
mod identity;
mod journal_contract;
mod lease;
mod pools;
mod reads;
mod requests;
mod schedules;
mod stores;
mod tokens;
mod upgrade;
mod wal_corruption;
