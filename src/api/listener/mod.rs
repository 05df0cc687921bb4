//! Listening ports: accepting connections, limiting their number, TLS, and detecting the protocol.

pub mod accept;
pub mod admission;
pub mod connection;
pub mod connection_limit;
mod detect;
pub mod idle_eviction;
mod lasting_calls;
mod send_timeout;
pub mod tls;
mod write_timeout;
