//! What the server tells about itself: its log, and the health of its host.

pub mod host;
pub mod log;
