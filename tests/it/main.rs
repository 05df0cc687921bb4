//! Black-box tests: the real binary, spoken to through its real port.

mod cli;
mod crash;
mod lifecycle;
mod refusals;
mod serving;
mod support;
mod watch;
