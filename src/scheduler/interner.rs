//! Sharing of equal task options, so that a queued task needs little memory.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::TaskOptions;

#[derive(Default)]
pub(super) struct OptionsInterner {
    /// With their hashes: with many fields, a hash costs more than all else here.
    options: HashTable<(u64, Arc<TaskOptions>)>,
    hasher: DefaultHashBuilder,
    /// Number of options at which unused ones are removed.
    sweep_at: usize,
}

impl OptionsInterner {
    pub fn intern(&mut self, options: TaskOptions) -> Arc<TaskOptions> {
        if self.options.len() >= self.sweep_at {
            self.options.retain(|(_, options)| Arc::strong_count(options) > 1);
            self.sweep_at = 1_024 + 2 * self.options.len();
        }
        let hash = self.hasher.hash_one(&options);
        let is_equal = |(known, shared): &(u64, Arc<TaskOptions>)| *known == hash && **shared == options;
        match self.options.entry(hash, is_equal, |(hash, _)| *hash) {
            Entry::Occupied(known) => known.get().1.clone(),
            Entry::Vacant(new) => new.insert((hash, Arc::new(options))).get().1.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;
    use std::time::Duration;

    use super::*;
    use crate::model::{RetryPolicy, ScheduleId};

    /// Or a call whose tasks differ only in that field would keep all others waiting.
    #[test]
    fn options_that_differ_in_any_field_differ_in_their_hashes() {
        let sample = TaskOptions::sample();
        let retry = |change: fn(&mut RetryPolicy)| {
            let mut retry = sample.retry.clone();
            change(&mut retry);
            TaskOptions { retry, ..sample.clone() }
        };
        let others = [
            TaskOptions { timeout: sample.timeout + Duration::from_nanos(1), ..sample.clone() },
            TaskOptions { schedule: ScheduleId::parse("nightly").ok(), ..sample.clone() },
            TaskOptions { content_type: "text/html".into(), ..sample.clone() },
            TaskOptions { at_most_once: true, ..sample.clone() },
            retry(|retry| retry.attempts_max += 1),
            retry(|retry| retry.delay += Duration::from_nanos(1)),
            retry(|retry| retry.delay_max += Duration::from_nanos(1)),
            retry(|retry| retry.factor = retry.factor.next_up()),
            retry(|retry| retry.jitter = retry.jitter.next_up()),
        ];
        let hasher = DefaultHashBuilder::default();
        for other in others {
            assert_ne!(hasher.hash_one(&other), hasher.hash_one(&sample), "{other:?}");
        }
        let (zero, negative) = (retry(|retry| retry.jitter = 0.0), retry(|retry| retry.jitter = -0.0));
        assert_eq!(hasher.hash_one(&zero), hasher.hash_one(&negative), "equal options have equal hashes");
    }
}
