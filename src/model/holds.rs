//! What keeps a task from starting: its holds, for which it is WAITING instead of QUEUED, and what keeps its pool from starting it.

use super::id::PoolName;
use super::spec::TaskExtras;
use super::task::TaskState;

/// The number is stored.
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

impl Hold {
    pub const ALL: [Self; 4] = [Self::Delay, Self::BackOff, Self::Parents, Self::Limit];
}

/// The holds of a task. It is WAITING exactly while it has at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds(u8);

impl Holds {
    pub const NONE: Self = Self(0);
    /// Those that a timer releases. They exclude each other, so a task has at most one such timer.
    const TIMED: u8 = Hold::Delay as u8 | Hold::BackOff as u8;

    pub fn number(self) -> u8 {
        self.0
    }

    /// Inverse of [`Holds::number`].
    pub fn from_number(number: u8) -> Option<Self> {
        let known = Hold::ALL.iter().fold(0, |known, hold| known | *hold as u8);
        (number & !known == 0).then_some(Self(number))
    }

    pub fn iter(self) -> impl Iterator<Item = Hold> {
        Hold::ALL.into_iter().filter(move |hold| self.contains(*hold))
    }

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

/// What keeps a task from starting, without what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockerKind {
    Delay,
    BackOff,
    Parents,
    Limit,
    PausedPool,
    MissingPool,
    NoWorker,
    PoolSlots,
    NamespaceSlots,
    LowMemory,
    Trial,
    Draining,
}

impl BlockerKind {
    pub const ALL: [Self; 12] = [
        Self::Delay,
        Self::BackOff,
        Self::Parents,
        Self::Limit,
        Self::PausedPool,
        Self::MissingPool,
        Self::NoWorker,
        Self::PoolSlots,
        Self::NamespaceSlots,
        Self::LowMemory,
        Self::Trial,
        Self::Draining,
    ];

    /// As labels of metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::BackOff => "back_off",
            Self::Parents => "parents",
            Self::Limit => "limit",
            Self::PausedPool => "paused_pool",
            Self::MissingPool => "missing_pool",
            Self::NoWorker => "no_worker",
            Self::PoolSlots => "pool_slots",
            Self::NamespaceSlots => "namespace_slots",
            Self::LowMemory => "low_memory",
            Self::Trial => "trial",
            Self::Draining => "draining",
        }
    }
}

/// Numbers of tasks of a pool by what keeps them from starting. A task with several blockers counts for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedTasks {
    pub pool: PoolName,
    /// In the order of [`BlockerKind::ALL`].
    pub counts: [u64; BlockerKind::ALL.len()],
}
