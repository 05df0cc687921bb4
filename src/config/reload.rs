//! What a server that runs cannot take over from a new configuration.

use toml::Value;

use super::settings::Config;
use crate::model::secret::with_secrets_revealed;

/// Paths of the settings that differ, other than pools, connections, handlers, limits of tasks and schedules. They are used after a restart.
pub fn fixed_settings(running: &Config, new: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    find_differences(&fixed_values(running), &fixed_values(new), String::new(), &mut paths);
    paths
}

fn fixed_values(config: &Config) -> Value {
    // Built-in handlers are handlers.
    let (pools, connections, handlers) = (Vec::new(), Vec::new(), Vec::new());
    let (task_limits, schedules) = (Vec::new(), Vec::new());
    let fixed = Config { pools, connections, handlers, task_limits, schedules, builtins: true, ..config.clone() };
    with_secrets_revealed(|| Value::try_from(fixed)).expect("a configuration can be written as TOML")
}

fn find_differences(one: &Value, other: &Value, path: String, paths: &mut Vec<String>) {
    let (Value::Table(one), Value::Table(other)) = (one, other) else {
        if one != other {
            paths.push(path);
        }
        return;
    };
    let only_other = other.keys().filter(|key| !one.contains_key(*key));
    for key in one.keys().chain(only_other) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (one.get(key), other.get(key)) {
            (Some(one), Some(other)) => find_differences(one, other, path, paths),
            _ => paths.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Overrides, load};

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lineshaft.toml");
        std::fs::write(&path, text).unwrap();
        load(Some(Path::new(&path)), [], Overrides::default()).unwrap()
    }

    #[test]
    fn settings_that_need_a_restart_are_named_with_their_whole_path_and_pools_and_handlers_are_not() {
        let running = config("[server]\ndrain_limit = \"5s\"\n[telemetry]\nendpoint = \"http://a:1/?k=one\"");
        let new = config(
            "builtins = false\n[server]\ndrain_limit = \"6s\"\nhealth_listen = \"127.0.0.1:1\"\n\
             [telemetry]\nendpoint = \"http://a:1/?k=two\"\n[[pool]]\nname = \"p\"\n\
             [[handler]]\nname = \"h\"\nrunner = \"process\"\nargv = [\"x\"]",
        );
        let fixed = ["server.drain_limit", "server.health_listen", "telemetry.endpoint"];
        assert_eq!(fixed_settings(&running, &new), fixed, "also a secret that differs");
        assert!(fixed_settings(&new, &new).is_empty());
    }
}
