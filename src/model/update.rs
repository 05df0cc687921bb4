//! Changes of a task that has not started.

use std::time::Duration;

use super::clock::Timestamp;
use super::priority::Priority;
use super::spec::TaskOptions;

/// What an update changes; `None` keeps the present value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskUpdate {
    pub priority: Option<Priority>,
    pub timeout: Option<Duration>,
    /// Added, or replacing those with the same key.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Keys of labels to remove; those that the task lacks are ignored.
    pub remove_labels: Vec<Box<str>>,
    /// When the task may start; at once if it is in the past.
    pub not_before: Option<Timestamp>,
    pub expiry: Option<NewExpiry>,
}

/// When a task fails if it has not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewExpiry {
    At(Timestamp),
    Never,
}

impl NewExpiry {
    pub fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::Never => None,
        }
    }
}

impl TaskUpdate {
    /// The new options of a task.
    pub fn options(&self, present: &TaskOptions) -> TaskOptions {
        let is_kept = |key: &str| {
            !self.remove_labels.iter().any(|removed| **removed == *key)
                && !self.labels.iter().any(|(replaced, _)| **replaced == *key)
        };
        let kept = present.labels.iter().filter(|(key, _)| is_kept(key));
        let mut labels: Vec<_> = kept.chain(&self.labels).cloned().collect();
        labels.sort_unstable();
        TaskOptions {
            priority: self.priority.unwrap_or(present.priority),
            timeout: self.timeout.unwrap_or(present.timeout),
            labels: labels.into(),
            ..present.clone()
        }
    }

    /// Bytes of everything of variable size.
    pub fn bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        labels + self.remove_labels.iter().map(|key| key.len()).sum::<usize>()
    }
}
