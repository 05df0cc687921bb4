//! Lineshaft: a gRPC task-execution service.
//!
//! Programs call a server through the types and clients in [`proto`]. [`run`] is the `lineshaft` command itself. The
//! other modules are internal; `src/README.md` describes them.

mod api;
mod app;
mod cli;
mod command_line;
mod config;
mod files;
mod model;
mod pool;
pub mod proto;
mod runners;
mod scheduler;
mod store;
mod telemetry;

pub use command_line::run;
