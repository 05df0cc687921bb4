//! Unique keys: at most one of the unfinished tasks that would do the same work, and results of finished ones.

use std::time::Duration;

/// The unique key of a task, in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    pub key: Box<str>,
    pub on_conflict: OnUniqueConflict,
    /// Uses the result of a task with the same key that has completed and ended at most this long ago. The result of this
    /// task can be used likewise.
    pub reuse_result_within: Option<Duration>,
}

/// What a submission does if a task of the namespace with the same unique key has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OnUniqueConflict {
    /// The submission is refused.
    #[default]
    Fail = 1,
    /// The submission adds nothing and returns that task.
    UseExisting = 2,
    /// The new task is added, and that task is cancelled unless it has started.
    ReplaceQueued = 3,
}

impl OnUniqueConflict {
    /// Inverse of `as u8`.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Fail,
            2 => Self::UseExisting,
            3 => Self::ReplaceQueued,
            _ => return None,
        })
    }
}

impl UniqueKey {
    /// About the bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len()
    }
}
