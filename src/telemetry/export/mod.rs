//! Exports traces, metrics and log records to collectors over OTLP, or to standard output.
//!
//! The SDK batches and exports in its own threads. A separate runtime drives the gRPC connections to collectors,
//! because an export must also work on a server with one core, and because at shutdown the server's runtime waits for
//! the last export. Queues are bounded, and shutdown takes three seconds at most, even if a collector hangs.

mod attempt_attributes;
pub mod counts;
pub mod endpoint;
pub mod otlp;
pub mod pipeline;
pub mod rejections;
mod resource;
pub mod settings;
