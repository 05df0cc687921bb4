//! Holds: the reasons why a task is WAITING instead of QUEUED.

use crate::model::{TaskExtras, TaskState};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// The delay of the submission has not passed.
    Delay = 1,
    /// The back-off after a failed attempt has not passed.
    BackOff = 2,
    /// The task has not taken notice of the ends of all its parents.
    Parents = 4,
    /// A limit has no place or token for the task.
    Limit = 8,
}

/// The holds of a task. It is WAITING exactly while it has at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds(u8);

impl Holds {
    pub const NONE: Self = Self(0);
    /// Those that a timer releases. They exclude each other, so a task has at most one such timer.
    const TIMED: u8 = Hold::Delay as u8 | Hold::BackOff as u8;

    pub fn one_if(holds: bool, hold: Hold) -> Self {
        if holds { Self(hold as u8) } else { Self::NONE }
    }

    /// The holds that a submitted task of this state can have. It loses that of its parents if all have ended well.
    pub fn of_submitted(state: TaskState, extras: &TaskExtras) -> Self {
        if state != TaskState::Waiting {
            return Self::NONE;
        }
        let parents = Self::one_if(extras.dependencies.is_some(), Hold::Parents);
        // A task that waits for nothing else has a delay, which an older version may have stored differently.
        let delay = Self::one_if(extras.delay.is_some() || parents.is_empty(), Hold::Delay);
        Self(parents.0 | delay.0)
    }

    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    pub fn contains(self, hold: Hold) -> bool {
        self.0 & hold as u8 != 0
    }

    #[must_use]
    pub fn without(self, hold: Hold) -> Self {
        Self(self.0 & !(hold as u8))
    }

    /// The one that it has of these.
    #[must_use]
    pub fn only(self, hold: Hold) -> Self {
        Self(self.0 & hold as u8)
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without those that a timer releases.
    #[must_use]
    pub fn untimed(self) -> Self {
        Self(self.0 & !Self::TIMED)
    }

    /// Whether a timer releases one of them.
    pub fn has_timer(self) -> bool {
        self.0 & Self::TIMED != 0
    }

    /// The state of an unfinished task without an attempt.
    pub fn state(self) -> TaskState {
        if self.is_empty() { TaskState::Queued } else { TaskState::Waiting }
    }
}
