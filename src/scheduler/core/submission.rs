//! What comes to the core to be submitted, and its decision.

use crate::model::{Durability, RememberedRequest, Revision, TaskId, TaskSpec, TaskState};

/// Tasks to add together, with what the store knows about their IDs.
#[derive(Clone, Debug)]
pub struct Submission {
    pub specs: Vec<TaskSpec>,
    /// Missing if no task has a request ID.
    pub stored: Option<Box<StoredIds>>,
    /// Whether a new task is refused, so that nothing is added.
    pub repeats_only: bool,
    /// Whether a batch that does not exist is created, instead of being an error.
    pub creates_batch: bool,
}

impl From<Vec<TaskSpec>> for Submission {
    fn from(specs: Vec<TaskSpec>) -> Self {
        Self { specs, stored: None, repeats_only: false, creates_batch: false }
    }
}

impl Submission {
    /// A submission of each task by itself.
    pub fn split(self) -> impl Iterator<Item = Self> {
        let Self { specs, stored, repeats_only, creates_batch } = self;
        specs.into_iter().enumerate().map(move |(index, spec)| {
            let stored = stored.as_deref().filter(|_| spec.extras().request.is_some());
            let stored = stored.map(|stored| Box::new(stored.of_task(index)));
            Self { specs: vec![spec], stored, repeats_only, creates_batch }
        })
    }
}

/// What the store knows about the IDs of a submission.
#[derive(Clone, Debug, Default)]
pub struct StoredIds {
    /// The store had written everything up to here when the request IDs were looked up.
    pub revision: Revision,
    /// The request IDs that the store remembers, by index of the task, in this order.
    pub requests: Vec<(usize, RememberedRequest)>,
    /// Submissions of existing tasks that are repeated by the task with the same ID.
    pub repeated: Vec<Revision>,
}

impl StoredIds {
    /// What is known about one task, as the first.
    fn of_task(&self, index: usize) -> Self {
        let requests = self.request(index).map(|request| (0, request.clone()));
        Self { revision: self.revision, requests: requests.into_iter().collect(), repeated: Vec::new() }
    }

    pub fn request(&self, index: usize) -> Option<&RememberedRequest> {
        let at = self.requests.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.requests.get(at).map(|(_, request)| request)
    }
}

/// The decision about a submission.
#[derive(Debug)]
pub enum Verdict {
    Accepted(Submitted),
    /// More must be read from the store first. Nothing was added.
    Undecided(Box<Undecided>),
    /// At least one task is new, in a submission of repeated ones only.
    NotRepeated,
}

/// What must be read from the store before a submission can be decided.
#[derive(Debug)]
pub struct Undecided {
    pub submission: Submission,
    /// The request IDs must be looked up again once the store has written everything up to here.
    pub written_to: Option<Revision>,
    /// Existing tasks with the same ID, and the revisions of their submissions, to be compared.
    pub tasks: Vec<(TaskId, Revision)>,
}

/// An accepted task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// ID of the task; for a duplicate that of the first submission.
    pub id: TaskId,
    /// WAITING or QUEUED; for a duplicate the present state of the task, `None` if it was deleted.
    pub state: Option<TaskState>,
    /// Whether the submission repeats an earlier one, so that no task was added.
    pub duplicate: bool,
}

/// An accepted submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// In the order of the submission.
    pub accepted: Vec<Accepted>,
    /// Events of the added tasks have later revisions.
    pub after: Revision,
    /// As `after`; the events of repeated tasks that have ended have later revisions, too.
    pub after_ended: Revision,
    /// Revision of the last `Submitted` event.
    pub revision: Revision,
    /// When the submission may be acknowledged: `Fsync` if any of the tasks requires it.
    pub durability: Durability,
}
