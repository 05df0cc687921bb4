//! What the server tells about itself: its log, its traces, and the health of its host.

pub mod export;
pub mod host;
pub mod log;
mod repeats;
pub mod scope;
mod start;
pub mod tasklog;
pub mod trace;

pub use start::{Options, StartError, start};
