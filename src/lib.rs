//! Lineshaft: a gRPC task-execution service. The map for contributors is `src/README.md`.

pub mod cli;
pub mod model;
pub mod proto;
pub mod runners;
pub mod store;
