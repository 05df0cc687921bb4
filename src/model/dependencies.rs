//! Dependencies: the tasks that have to end before a task starts.

use super::id::TaskId;

/// Bytes that a parent needs in memory, besides those of its name: here, and in the table of the scheduler.
const PARENT_BYTES: usize = 64;

/// What a task does when one of its parents has failed or was cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OnParentFailure {
    /// Fail at once.
    #[default]
    Fail = 1,
    /// Start once all parents have ended.
    Run = 2,
    /// Be cancelled at once.
    Cancel = 3,
}

impl OnParentFailure {
    /// Inverse of `as u8`.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Fail,
            2 => Self::Run,
            3 => Self::Cancel,
            _ => return None,
        })
    }
}

/// A task that has to end first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// If the submission named it by its place, the scheduler sets this when it accepts the submission.
    pub id: TaskId,
    /// Its place among the tasks of the submission, if it was named by that.
    pub place: Option<u32>,
}

/// The parents of a task, as often as the submission has named each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// At least one. First those that were named by ID.
    pub parents: Box<[Parent]>,
    pub on_parent_failure: OnParentFailure,
}

impl Parent {
    /// A parent that was named by its place; its ID is not known yet.
    pub fn at(place: u32) -> Self {
        Self { id: TaskId::Uuid([0; 16]), place: Some(place) }
    }
}

impl Dependencies {
    /// About the bytes in memory.
    pub fn bytes(&self) -> usize {
        let name = |parent: &Parent| match &parent.id {
            TaskId::Uuid(_) => 0,
            TaskId::Named(name) => name.len(),
        };
        self.parents.iter().map(|parent| PARENT_BYTES + name(parent)).sum()
    }

    /// The field of a submission that names this parent.
    pub fn field(&self, parent: usize) -> String {
        let by_id = self.parents.partition_point(|parent| parent.place.is_none());
        match parent.checked_sub(by_id) {
            None => format!("dependencies.task_ids[{parent}]"),
            Some(at) => format!("dependencies.batch_indices[{at}]"),
        }
    }
}
