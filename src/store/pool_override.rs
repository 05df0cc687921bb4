//! Pool settings that were changed while a server ran.

use crate::model::{PoolName, PoolSettings, PoolSpec};

/// A change of a pool's settings that survives restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOverride {
    pub name: PoolName,
    /// The settings in the configuration when the pool was changed.
    pub configured: PoolSettings,
    /// The settings after the change.
    pub set: PoolSettings,
}

impl PoolOverride {
    /// Applies the override to a configured pool. A setting whose configuration has changed since the override was
    /// stored keeps its configured value; returns the names of the overridden values that are discarded this way.
    pub fn apply(&self, spec: &mut PoolSpec) -> Vec<&'static str> {
        let mut discarded = Vec::new();
        let (configured, then, set) = (PoolSettings::of(spec), self.configured, self.set);
        let mut keep = |name, same_configuration: bool, differs: bool| {
            if !same_configuration && differs {
                discarded.push(name);
            }
            same_configuration
        };
        if keep("size", configured.size == then.size, set.size != configured.size) {
            spec.size = set.size;
        }
        if keep("queue_limit", configured.queue_limit == then.queue_limit, set.queue_limit != configured.queue_limit) {
            spec.queue_limit = set.queue_limit;
        }
        if keep("paused", configured.paused == then.paused, set.paused != configured.paused) {
            spec.paused = set.paused;
        }
        discarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(size: usize, queue_limit: usize, paused: bool) -> PoolSpec {
        let spec = PoolSpec::with_defaults(PoolName::parse("a").unwrap(), 1);
        PoolSpec { size, queue_limit, paused, ..spec }
    }

    fn saved() -> PoolOverride {
        PoolOverride {
            name: PoolName::parse("a").unwrap(),
            configured: PoolSettings::of(&spec(4, 100, false)),
            set: PoolSettings { size: 7, queue_limit: 100, paused: true },
        }
    }

    #[test]
    fn an_override_applies_while_the_configuration_is_unchanged() {
        let mut same = spec(4, 100, false);
        assert!(saved().apply(&mut same).is_empty());
        assert_eq!(same, spec(7, 100, true));
    }

    #[test]
    fn a_changed_configuration_wins_over_the_override() {
        let mut changed = spec(5, 200, false);
        assert_eq!(saved().apply(&mut changed), ["size", "queue_limit"]);
        assert_eq!(changed, spec(5, 200, true), "an unchanged setting keeps its override");
    }

    #[test]
    fn an_override_equal_to_the_configuration_is_not_reported() {
        let mut equal = spec(7, 100, false);
        assert!(saved().apply(&mut equal).is_empty());
        assert_eq!(equal, spec(7, 100, true));
    }
}
