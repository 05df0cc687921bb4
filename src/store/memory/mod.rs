//! The journal and the projection in memory: for tests, and for servers that keep nothing across restarts.

mod journal;
mod projection;

pub use journal::MemoryJournal;
pub use projection::MemoryProjection;
