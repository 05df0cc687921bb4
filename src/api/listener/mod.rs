//! Connections: accepting them, limiting their number, TLS, and detecting their protocol.

pub mod accept;
pub mod connection_limit;
pub mod detect;
pub mod tls;
