//! How urgent a task is.

/// Higher runs sooner: no worker starts a task while one of higher priority waits in its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Runs when nothing else waits.
    Low = 0,
    /// The default.
    #[default]
    Normal = 1,
    /// Before normal work.
    High = 2,
    /// Before everything.
    Critical = 3,
}

impl Priority {
    /// How many priorities there are.
    pub const COUNT: usize = 4;
    /// Most urgent first, the order in which bands are served.
    pub const DESCENDING: [Self; Self::COUNT] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// Position in tables of length [`Priority::COUNT`]; LOW is 0.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reverses [`Priority::index`].
    pub const fn from_index(index: usize) -> Option<Self> {
        match index {
            0 => Some(Self::Low),
            1 => Some(Self::Normal),
            2 => Some(Self::High),
            3 => Some(Self::Critical),
            _ => None,
        }
    }
}
