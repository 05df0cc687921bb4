//! Runs programs that the operator has registered; no shell is involved unless the operator registers one.
//!
//! Each attempt has a shim process as its parent, which is also the subreaper of everything that the program starts. The
//! program leads a session and has a clean environment, its own working directory and the limits of its handler.
//! The payload goes to stdin, stdout becomes the result, and stderr is the log: the shim gets the payload with the order
//! to start, and sends the output with its reports. A program that wants it has two pipes more, for [reports](reports) and for
//! its result, and a directory for its artifacts. When an attempt has ended, none of its
//! processes is left. The shims are children of the supervisor, which also survives a kill of the server:
//!
//! ```text
//! server ── supervisor ─┬─ shim ── program ── …
//!                       └─ shim
//! ```

mod account;
mod artifact_directory;
mod attempt;
mod descendants;
mod directories;
mod environment;
mod files;
mod handler;
mod harden;
mod host;
mod limits;
mod nice;
mod options;
mod orders;
mod outcome;
mod pipes;
mod preflight;
mod read_rate;
mod received;
mod remove;
mod reports;
mod runner;
mod shim;
mod shim_process;
pub mod supervisor;
mod supervisor_process;
mod sys;
#[cfg(test)]
mod tests;
mod wire;

pub use harden::harden_process;
pub use host::Host;
pub use limits::Limits;
pub use options::{OptionsError, ProcessOptions};
pub use preflight::preflight;
pub use runner::ProcessRunner;
pub use supervisor_process::supervise_main;
