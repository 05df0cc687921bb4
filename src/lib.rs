//! Lineshaft: a gRPC task-execution service.
//!
//! - [`Server`] is the whole service in your program, with its functions as handlers.
//! - [`Worker`] runs tasks with the functions of your program, on any machine.
//! - [`Client`] submits tasks and reads their results; [`proto`] has all other types and calls of a server.
//! - [`run`] is the `lineshaft` command itself.

mod api;
mod app;
mod artifacts;
mod cli;
mod client;
mod command_line;
mod config;
mod files;
mod function;
mod model;
mod pool;
pub mod proto;
mod runners;
mod scheduler;
mod server;
mod store;
mod telemetry;
mod threads;
mod worker;

pub use client::{CallError, Client, ClientBuilder, ClientChannel, Completed, ConnectError, Task, Watch};
pub use command_line::run;
pub use function::{
    ArtifactContent, BoxError, FromPayload, IntoPayload, ParentResult, ParentResults, Payload, PayloadError, Permanent,
    StopReason, TaskContext, TaskLog, TaskOutput, permanent,
};
pub use server::{Server, ServerBuilder, ServerError, ServerHandle};
pub use worker::{Worker, WorkerError, WorkerHandle};
