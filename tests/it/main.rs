//! Black-box tests: the real binary, spoken to through its real port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::unnecessary_wraps, reason = "optional fields of requests")]

mod backup;
mod cli;
mod collector;
mod crash;
mod disk;
mod doctor;
mod guarantees;
mod half_open;
mod http;
mod keda;
mod lifecycle;
mod log;
mod metrics;
mod misbehaving_handlers;
mod observed;
mod pools;
mod raw;
mod refusals;
mod security;
mod serving;
mod silence;
mod stalls;
mod support;
mod telemetry;
mod telemetry_lost;
mod telemetry_tls;
mod upgrade;
mod watch;
mod wire;
