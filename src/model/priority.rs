//! Task priorities.

use std::fmt;

/// No worker starts a task while an eligible task of higher priority waits in the same pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    Low = 0,
    #[default]
    Normal = 1,
    High = 2,
    Critical = 3,
}

impl Priority {
    pub const COUNT: usize = 4;
    /// Most urgent first.
    pub const DESCENDING: [Self; Self::COUNT] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// Index in arrays of length [`Priority::COUNT`]; LOW is 0.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Inverse of [`Priority::index`].
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

/// As in the contract, without its prefix.
impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "LOW",
            Self::Normal => "NORMAL",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        })
    }
}
