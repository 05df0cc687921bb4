//! Tests of the whole store.

mod backup;
mod conformance;
mod corruption;
pub mod fixtures;
mod identity;
mod pool_overrides;
mod stores;
mod wal_corruption;
