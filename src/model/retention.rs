//! How long finished tasks are kept.

use std::time::Duration;

use super::request::RequestRetention;

/// Which finished tasks are kept, and which request IDs are remembered, until any limit is exceeded.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Tasks per namespace.
    pub count: usize,
    /// Bytes per namespace of what [`TaskEvent::content_bytes`] counts. The task that ended last may have more, so that it
    /// can be read.
    ///
    /// [`TaskEvent::content_bytes`]: super::event::TaskEvent::content_bytes
    pub bytes: u64,
    /// Time since the end of the task.
    pub age: Duration,
    pub requests: RequestRetention,
}

impl Retention {
    /// Whether a namespace with these finished tasks must lose the oldest.
    pub fn is_exceeded_by(&self, count: usize, bytes: u64) -> bool {
        count > self.count || (bytes > self.bytes && count > 1)
    }
}
