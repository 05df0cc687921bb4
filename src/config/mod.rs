//! The server's configuration: command line, environment and file make one validated [`Config`].
//!
//! The command line overrides the environment, the environment overrides the file, and the file overrides the defaults.
//! An unknown setting is an error. Each problem is reported with its field, value, limit and location.

mod artifacts;
mod auth;
mod builtin;
mod connection;
mod diagnostics;
mod error;
mod exit_codes;
mod export;
mod handler;
mod http;
mod http_call;
mod load;
mod pool;
mod program;
mod program_checks;
mod provenance;
mod reload;
mod schedule;
mod schema_file;
mod server;
mod settings;
mod task_limit;
mod telemetry;
mod text_or_integer;
mod tls;
mod units;

pub use auth::{Auth, Jwt, JwtAlgorithm};
pub use builtin::Builtin;
pub use error::ConfigError;
#[cfg(feature = "export")]
pub use export::Export;
pub use handler::{Handler, Launch};
pub use http_call::{HttpMethod, HttpRequest};
pub use load::{Loaded, Overrides, Sources, load};
pub use pool::{Pool, PoolKind};
pub use program::Process;
#[cfg(feature = "wasm")]
pub use program::Wasm;
pub use reload::fixed_settings;
pub use schedule::{Dst, Overlap, Priority, Schedule};
pub use server::{MEMORY_BASE, Store, UNWRITTEN_BYTES_MIN, unwritten_bytes};
pub use settings::Config;
pub use tls::{ClientCertificate, Tls};
pub use units::HumanDuration;

#[cfg(test)]
mod program_tests;
#[cfg(test)]
mod tests;
