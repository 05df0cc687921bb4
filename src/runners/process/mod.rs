//! Runs programs that the operator has registered; no shell is involved unless the operator registers one.
//!
//! Each attempt is a process group with a clean environment, its own working directory and the limits of
//! its handler. The payload goes to stdin, stdout becomes the result, and stderr is the log. When an attempt
//! has ended, no process of its group is left; [`supervisor`] describes what happens when the server is killed.

mod attempt;
mod child;
mod environment;
mod handler;
mod harden;
mod host;
mod limits;
mod options;
mod runner;
pub mod supervisor;
mod sys;
#[cfg(test)]
mod tests;

pub use environment::DEFAULT_PATH;
pub use harden::harden_process;
pub use host::Host;
pub use limits::Limits;
pub use options::{OptionsError, ProcessOptions, ResultSource};
pub use runner::ProcessRunner;
pub use supervisor::{Supervisor, supervise_main};
