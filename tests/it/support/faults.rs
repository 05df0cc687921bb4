//! System calls of a server that fail or hang: a library that is preloaded into it.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{check, eventually, run};

/// Makes system calls of a server fail or hang, as the rules say; see `faults.c`.
pub struct Faults {
    directory: TempDir,
}

impl Faults {
    /// Compiles the library.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (source, library) = (path("faults.c"), path("faults.so"));
        std::fs::write(&source, include_str!("faults.c")).unwrap();
        let arguments = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1", "-o"];
        let (compiled, output) = run("cc", arguments.into_iter().chain([&*library, &*source, "-ldl"]));
        assert!(compiled, "this test needs a C compiler: {output}");
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The environment variables of a server whose calls obey the rules.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let path = |name| self.path(name).display().to_string();
        [("LD_PRELOAD", path("faults.so")), ("FAULTS", path("rules"))]
    }

    /// Replaces the rules, and forgets what was recorded.
    pub fn set(&self, rules: &[&str]) {
        // A server that was stopped may not have recorded anything.
        let _ = std::fs::remove_file(self.path("rules.log"));
        let draft = self.path("draft");
        std::fs::write(&draft, rules.join("\n")).unwrap();
        std::fs::rename(draft, self.path("rules")).unwrap();
    }

    /// Removes the rules.
    pub fn clear(&self) {
        std::fs::remove_file(self.path("rules")).unwrap();
    }

    /// The lines recorded since the last [`Faults::set`]: the rules that were applied, and the syncs.
    pub fn recorded(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("rules.log")).unwrap_or_default();
        log.lines().map(ToOwned::to_owned).collect()
    }

    /// How often a rule was applied since the last [`Faults::set`].
    pub fn applied(&self, rule: &str) -> usize {
        let (what, suffix) = rule.rsplit_once(' ').expect("a rule without FROM");
        let is_applied = |line: &&String| line.starts_with(&format!("{what} ")) && line.ends_with(suffix);
        self.recorded().iter().filter(is_applied).count()
    }

    /// Waits until a rule was applied that many times.
    pub async fn wait_applied(&self, rule: &str, times: usize) {
        eventually(async || check(self.applied(rule) >= times, || format!("`{rule}`: {}", self.applied(rule)))).await;
    }
}
