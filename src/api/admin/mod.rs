//! The admin ports: health checks and metrics on listeners of their own.

pub mod health;
pub mod listener;
pub mod metrics;
