//! How many tasks of a pool each hold keeps WAITING.

use crate::model::{Hold, Holds};

/// Numbers of WAITING tasks by hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldTasks([u64; Hold::ALL.len()]);

impl HeldTasks {
    /// The holds of a task change.
    pub fn change(&mut self, from: Holds, to: Holds) {
        if from == to {
            return;
        }
        for (count, hold) in self.0.iter_mut().zip(Hold::ALL) {
            *count += u64::from(to.contains(hold));
            *count -= u64::from(from.contains(hold));
        }
    }

    pub fn of(&self, hold: Hold) -> u64 {
        let counts = self.0.iter().zip(Hold::ALL);
        counts.filter(|(_, other)| *other == hold).map(|(count, _)| *count).sum()
    }
}
