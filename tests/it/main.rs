//! Black-box tests: the real binary, spoken to through its real port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::unnecessary_wraps, reason = "optional fields of requests")]

mod abuse;
mod cli;
mod collector;
mod crash;
mod lifecycle;
mod pools;
mod promises;
mod refusals;
mod serving;
mod support;
mod telemetry;
mod watch;
mod wire;
