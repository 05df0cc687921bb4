//! What the server tells about itself: its log, its traces, and the health of its host.

pub mod export;
pub mod host;
pub mod log;
pub mod scope;
pub mod trace;
