//! Runs WebAssembly modules in a sandbox: commands of WASI preview 1, and components of WASI preview 2 (`wasi:cli`).
//!
//! Each attempt has a new instance of its module, called a guest. The payload is its stdin, stdout becomes the result, and
//! stderr is the log. A guest has no files and no network; clocks only if the handler grants them.
//!
//! A guest runs on the thread of its worker. Nothing can take the thread away from it, so the compiled code looks at the
//! [epoch](ticker) of the engine in each loop and function, and asks whether it has to stop when the epoch has changed. A
//! guest that waits in a call of the host, for example to sleep, is dropped.

mod attempt;
mod cache;
mod cpu_clock;
mod engine;
mod guest;
mod handler;
mod limits;
mod module;
mod options;
mod outcome;
mod program;
mod runner;
mod streams;
#[cfg(test)]
pub(super) mod test_guests;
#[cfg(test)]
mod tests;
mod ticker;

pub use engine::{Engine, EngineError, before_hiding};
pub use options::{OptionsError, WasmOptions};
pub use runner::WasmRunner;
