//! Lineshaft: a gRPC task-execution service.
#![doc = include_str!("README.md")]

pub mod api;
pub mod app;
pub mod cli;
mod command_line;
pub mod config;
pub mod model;
pub mod pool;
pub mod proto;
pub mod runners;
pub mod scheduler;
pub mod store;
pub mod telemetry;

pub use command_line::run;
