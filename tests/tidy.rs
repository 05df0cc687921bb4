//! The rules of the house that a compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules in the order of the house plan, each with those that it may import.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("proto", &[]),
    ("model", &[]),
    ("telemetry", &["model"]),
    ("config", &["model", "telemetry"]),
    ("store", &["model", "telemetry"]),
    ("runners", &["model", "telemetry"]),
    ("pool", &["runners", "model", "telemetry"]),
    ("scheduler", &["pool", "runners", "store", "model", "telemetry"]),
    ("api", &["proto", "scheduler", "model", "telemetry"]),
    ("cli", &["proto", "model"]),
    ("app", &["api", "config", "model", "pool", "runners", "scheduler", "store", "telemetry"]),
    ("command_line", &["app", "cli", "config", "runners", "store", "telemetry"]),
];

/// Words that others use for what has a name here.
const SYNONYMS: [&str; 6] = ["job", "jobs", "executor", "executors", "queue item", "queue-item"];

const LINES_MAX: usize = 700;

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(directory).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        sources(&root.join(folder), &mut found);
    }
    assert!(!found.is_empty());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a text");
        (path.strip_prefix(root).expect("below the root").display().to_string(), text)
    };
    found.into_iter().map(read).collect()
}

fn fail_with(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn modules_import_downwards_only() {
    let mut faults = Vec::new();
    for (path, text) in all(&["src"]) {
        let Some(module) = path.strip_prefix("src/").and_then(|rest| rest.split(['/', '.']).next()) else { continue };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else { continue };
        for (number, line) in text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(char::is_ascii_lowercase).collect();
                let is_module = MAY_IMPORT.iter().any(|(name, _)| *name == used);
                if is_module && used != module && !allowed.contains(&used.as_str()) {
                    faults.push(format!("{path}:{}: {module} imports {used}", number + 1));
                }
            }
        }
    }
    fail_with(&faults);
}

#[test]
fn every_module_of_the_house_is_in_the_plan() {
    let mut faults = Vec::new();
    for (path, _) in all(&["src"]) {
        let module = path.strip_prefix("src/").and_then(|rest| rest.split(['/', '.']).next()).unwrap_or_default();
        if !["lib", "main"].contains(&module) && !MAY_IMPORT.iter().any(|(name, _)| *name == module) {
            faults.push(format!("{path}: {module} has no place in MAY_IMPORT"));
        }
    }
    fail_with(&faults);
}

#[test]
fn every_file_opens_with_what_it_is_for_and_is_no_giant() {
    let mut faults = Vec::new();
    for (path, text) in all(&["src", "tests"]) {
        if !text.starts_with("//! ") && path != "src/lib.rs" {
            faults.push(format!("{path}: does not open with `//!`"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{path}: has {lines} lines"));
        }
    }
    fail_with(&faults);
}

#[test]
fn words_are_those_of_the_house() {
    let mut faults = Vec::new();
    for (path, text) in all(&["src"]) {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
            for synonym in SYNONYMS {
                if words.contains(&synonym) || (synonym.contains(' ') && lower.contains(synonym)) {
                    faults.push(format!("{path}:{}: says {synonym}", number + 1));
                }
            }
            // Put together here, so that this file does not find itself.
            for mark in [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")] {
                if line.contains(mark) {
                    faults.push(format!("{path}:{}: says {mark}", number + 1));
                }
            }
        }
    }
    fail_with(&faults);
}

#[test]
fn the_lock_file_has_one_version_of_what_must_be_one() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).expect("a lock file");
    for name in ["tonic", "prost", "tokio", "hyper", "h2"] {
        let count = lock.matches(&format!("\nname = \"{name}\"\n")).count();
        assert_eq!(count, 1, "{count} versions of {name}");
    }
}
