//! The admin ports: separate listeners for health checks and metrics.

pub mod health;
pub mod listener;
pub mod metrics;
