//! HTTP without gRPC: JSON by the Connect protocol, gRPC-Web, the plain routes, health and metrics pages, the dashboard.
//!
//! The calls become calls of the same gRPC services.

mod artifacts;
mod body;
mod connect;
mod context;
mod descriptors;
mod front;
pub mod health;
mod json_decode;
mod json_payload;
mod json_transcode;
mod loopback;
pub mod metrics;
mod origin;
mod plain;
mod query;
mod response;
mod routes;
mod ui;

pub use context::{Calls, Context};
pub use descriptors::Contract;
pub use front::Front;
pub use origin::Origins;
pub use routes::{Kind, Routes};
