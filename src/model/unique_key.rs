//! Unique keys: at most one of the unfinished tasks that would do the same work.

/// The unique key of a task, in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    pub key: Box<str>,
    pub on_conflict: OnUniqueConflict,
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
