//! Which settings of a pool apply: those of the configuration, or those that were set while a server ran.

use crate::model::{PoolChange, PoolSettings};

/// The settings of a configured pool after a change at run time. A setting whose configuration has changed since then
/// has its configured value; also returns the names of those that the change had set.
pub(super) fn settings_after(configured: PoolSettings, change: PoolChange) -> (PoolSettings, Vec<&'static str>) {
    let PoolChange::Updated { configured: then, set } = change;
    let mut replaced = Vec::new();
    // Whether the value of the change applies.
    let mut keep = |name, same_configuration: bool, was_set: bool| {
        if !same_configuration && was_set {
            replaced.push(name);
        }
        same_configuration
    };
    let mut settings = configured;
    if keep("size", configured.size == then.size, set.size != then.size) {
        settings.size = set.size;
    }
    if keep("queue_limit", configured.queue_limit == then.queue_limit, set.queue_limit != then.queue_limit) {
        settings.queue_limit = set.queue_limit;
    }
    if keep("paused", configured.paused == then.paused, set.paused != then.paused) {
        settings.paused = set.paused;
    }
    (settings, replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(size: usize, queue_limit: usize, paused: bool) -> PoolSettings {
        PoolSettings { size, queue_limit, paused }
    }

    fn change() -> PoolChange {
        PoolChange::Updated { configured: settings(4, 100, false), set: settings(7, 100, true) }
    }

    #[test]
    fn a_change_applies_while_the_configuration_is_unchanged() {
        assert_eq!(settings_after(settings(4, 100, false), change()), (settings(7, 100, true), vec![]));
    }

    #[test]
    fn a_changed_configuration_wins_over_the_change() {
        let (settings_now, replaced) = settings_after(settings(5, 200, false), change());
        assert_eq!(replaced, ["size"], "the change had not set the other one");
        assert_eq!(settings_now, settings(5, 200, true), "an unchanged setting keeps its change");
    }
}
