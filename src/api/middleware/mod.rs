//! Middleware between a connection and the gRPC services.

pub mod body_timeout;
pub mod call_trace;
pub mod deadline;
pub mod guard;
