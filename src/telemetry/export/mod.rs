//! Exports traces, metrics and log records to collectors over OTLP, or to standard output.
//!
//! The SDK batches and exports on threads of its own. gRPC connections are driven by a runtime of their own: an
//! export must work on a server with one core, and must not wait for the runtime that waits for it at shutdown.
//! Queues are bounded, and shutdown takes three seconds at most, whatever the collector does.

mod attempt_attributes;
pub mod counts;
pub mod endpoint;
pub mod otlp;
pub mod pipeline;
mod resource;
pub mod settings;
