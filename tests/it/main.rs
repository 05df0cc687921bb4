//! Black-box tests: the real binary, spoken to through its real port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cli;
mod crash;
mod lifecycle;
mod refusals;
mod serving;
mod support;
mod watch;
