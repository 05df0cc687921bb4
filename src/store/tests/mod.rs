//! Tests of the whole store.

mod backup;
mod conformance;
mod corruption;
pub mod fixtures;
mod identity;
mod lease;
mod pools;
mod reads;
mod stores;
mod wal_corruption;
