//! Lineshaft: a gRPC task-execution service. The map for contributors is `src/README.md`.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod model;
pub mod pool;
pub mod proto;
pub mod runners;
pub mod scheduler;
pub mod store;
pub mod telemetry;
