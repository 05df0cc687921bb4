//! Ways to run an attempt: one folder per kind of work behind [`Runner`].
//!
//! A runner receives a [`Run`] and returns a [`RunReport`]; it never sees the scheduler. Runners are
//! called by the workers of a pool, one run at a time per worker.

pub mod builtin;
#[cfg(test)]
mod conformance;
mod environment;
mod exit_codes;
#[cfg(feature = "export")]
pub mod export;
#[cfg(test)]
mod fixtures;
mod function;
pub mod http;
mod kept_files;
mod modules;
mod output;
mod parents;
pub mod process;
mod registry;
pub mod remote;
mod result;
mod result_memory;
mod runner;
mod stop;
pub(crate) mod sync;
#[cfg(feature = "wasm")]
pub mod wasm;

pub use function::FunctionRunner;
pub use modules::{Modules, UploadError};
pub use output::OutputBuffer;
pub use parents::{ParentRead, ParentSource, Parents};
pub use registry::{Registry, Runners};
pub use result_memory::ResultMemory;
pub use runner::{BoxFuture, Outcome, ProgressSink, Run, RunReport, Runner};
pub use stop::{StopCause, StopListener, StopSignal};
