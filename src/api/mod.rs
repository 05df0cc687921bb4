//! The edge of the server: the only module that depends on tonic's server side.
//!
//! It converts requests of the contract into values of the model, calls the scheduler, and converts the
//! results and errors back.

mod admin;
mod auth;
mod convert;
mod headers;
mod http;
mod incident;
mod listener;
mod middleware;
mod security;
mod server;
mod services;
mod status;
mod watched_files;

pub use admin::metrics::serve as serve_metrics;
pub use auth::{Algorithm, AuthOptions, CertificateRule, ClaimRule, JwtOptions, KeySource, LimitOptions};
pub use convert::schedule::configured as configured_schedule;
pub use listener::connection::ConnectionOptions;
pub use listener::tls::TlsOptions;
pub use security::{Security, SecurityError, SecurityOptions};
pub use server::{Options, ServeError, serve, serve_health};
pub use watched_files::{INTERVAL as FILE_INTERVAL, Stamp, stamp};
