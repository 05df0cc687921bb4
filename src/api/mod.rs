//! The edge: the only module that knows tonic. Turns the contract into the model and back, and
//! refusals into rich errors.

mod admission;
mod arrival;
mod aside;
mod auth;
mod connections;
mod convert;
mod deadline;
mod guard;
mod handlers;
mod health;
mod http;
mod keda;
mod pools;
mod probes;
mod reload;
mod scrapes;
mod security;
mod server;
mod sniff;
mod status;
mod system;
mod tasks;
mod ticks;
mod tls;
mod traced;

pub use auth::{Algorithm, AuthError, AuthOptions, CertificateRule, ClaimRule, JwtOptions, KeySource, LimitOptions};
pub use scrapes::serve as serve_scrapes;
pub use security::{Security, SecurityError, SecurityOptions};
pub use server::{HostReading, Options, ServeError, serve, serve_probes};
pub use tls::{TlsError, TlsOptions};
