//! Holds: the reasons why a task is WAITING instead of QUEUED.

use crate::model::TaskState;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// The delay of the submission has not passed.
    Delay = 1,
    /// The back-off after a failed attempt has not passed.
    BackOff = 2,
}

/// The holds of a task. It is WAITING exactly while it has at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds(u8);

impl Holds {
    pub const NONE: Self = Self(0);

    pub fn one_if(holds: bool, hold: Hold) -> Self {
        if holds { Self(hold as u8) } else { Self::NONE }
    }

    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether a timer releases one of them. The two kinds exclude each other, so a task has at most one such timer.
    pub fn has_timer(self) -> bool {
        self.0 & (Hold::Delay as u8 | Hold::BackOff as u8) != 0
    }

    /// The state of an unfinished task without an attempt.
    pub fn state(self) -> TaskState {
        if self.is_empty() { TaskState::Queued } else { TaskState::Waiting }
    }
}
