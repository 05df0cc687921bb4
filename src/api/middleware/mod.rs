//! Middleware between a connection and the gRPC services. Each file is one tower layer, or code that several
//! layers share. `server.rs` lists the layers in order.

pub mod admission;
pub mod authentication;
pub mod body_timeout;
mod call_future;
pub mod call_metrics;
pub mod call_slots;
pub mod call_trace;
pub mod catch_panic;
pub mod deadline;
pub mod error_mapping;
pub mod grpc_timeout;
mod layered_body;
pub mod load_shed;
pub mod public_calls;
pub mod public_places;
pub mod request_memory;
pub mod response_memory;
#[cfg(test)]
mod test_support;
mod trace_context;
mod traced_call;
