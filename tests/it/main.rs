//! Black-box tests: they start the binary and call it over its ports.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]
#![expect(clippy::unnecessary_wraps, reason = "optional fields of requests")]

mod backup;
mod batches;
mod broken_connections;
mod cli;
mod cli_contexts;
mod cli_lists;
mod cli_many;
mod cli_output;
mod clock_steps;
mod collector;
mod command_line;
mod connection_age;
mod crash;
mod dashboard;
mod data_directory;
mod disk;
mod disk_faults;
mod dispatch;
mod doctor;
mod drain;
mod error_lists;
mod guarantees;
mod half_open;
mod health_endpoints;
mod http;
mod http1_client;
mod http2_client;
mod http_handlers;
mod idle_connections;
mod keda;
mod library;
mod lifecycle;
mod log;
mod malformed_requests;
mod map;
mod memory;
mod metrics;
mod misbehaving_handlers;
mod pools;
mod process_lifetime;
mod process_users;
mod reads;
mod reflection;
mod refusals;
mod registered_handlers;
mod reload;
mod remote_workers;
mod repeated_submissions;
mod request_ids;
mod rust_client;
mod rust_worker;
mod security;
mod stalls;
mod startup;
mod support;
mod telemetry;
mod telemetry_lost;
mod telemetry_tls;
mod top;
mod upgrade;
#[cfg(feature = "wasm")]
mod wasm_handlers;
mod watch;
