//! How many bytes the commits of a journal have, so that it can be trimmed to a size.

use std::collections::VecDeque;

use crate::model::Revision;

/// Bytes of consecutive commits that are counted together.
const STEP_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

#[derive(Debug, Default)]
pub struct JournalSizes {
    /// Last revision and bytes of consecutive commits.
    steps: VecDeque<(Revision, u64)>,
}

impl JournalSizes {
    /// Counts the next commit.
    pub fn add(&mut self, last: Revision, bytes: u64) {
        match self.steps.back_mut() {
            Some((end, sum)) if *sum < STEP_BYTES => (*end, *sum) = (last, *sum + bytes),
            _ => self.steps.push_back((last, bytes)),
        }
    }

    /// Must be called when everything up to this revision is deleted.
    pub fn trim(&mut self, up_to: Revision) {
        let count = self.steps.partition_point(|(end, _)| *end <= up_to);
        self.steps.drain(..count);
    }

    /// The revision after which there are at most this many bytes; `None` if there are no more in all.
    pub fn excess(&self, bytes: u64) -> Option<Revision> {
        let mut sum = 0;
        let kept = self.steps.iter().rev().take_while(|(_, step)| {
            sum += step;
            sum <= bytes
        });
        let excess = self.steps.len() - kept.count();
        self.steps.get(excess.checked_sub(1)?).map(|(end, _)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_a_number_of_bytes_ends_where_the_rest_begins() {
        let mut sizes = JournalSizes::default();
        assert_eq!(sizes.excess(0), None);
        for last in 1..=40 {
            sizes.add(Revision(last), STEP_BYTES / 4);
        }
        assert_eq!(sizes.excess(10 * STEP_BYTES), None);
        assert_eq!(sizes.excess(10 * STEP_BYTES - 1), Some(Revision(4)));
        assert_eq!(sizes.excess(2 * STEP_BYTES), Some(Revision(32)));
        assert_eq!(sizes.excess(0), Some(Revision(40)));
        sizes.trim(Revision(33));
        assert_eq!(sizes.excess(2 * STEP_BYTES), None);
        assert_eq!(sizes.excess(STEP_BYTES), Some(Revision(36)));
    }
}
