//! Rules of the code base that the compiler does not check: layering, file layout, and vocabulary.

mod imports;
mod vocabulary;

use std::fs;
use std::path::{Path, PathBuf};

use imports::Imports;

/// Modules from the bottom up, each with those that it may import.
const MAY_IMPORT: [(&str, &[&str]); 19] = [
    ("files", &[]),
    ("threads", &[]),
    ("proto", &[]),
    ("model", &[]),
    ("function", &["model"]),
    ("telemetry", &["model"]),
    ("config", &["model", "telemetry"]),
    ("store", &["files", "threads", "model", "telemetry"]),
    ("artifacts", &["files", "model", "telemetry"]),
    ("runners", &["artifacts", "function", "files", "threads", "model", "telemetry"]),
    ("pool", &["artifacts", "runners", "model", "telemetry"]),
    ("scheduler", &["pool", "runners", "artifacts", "store", "threads", "model", "telemetry"]),
    ("api", &["artifacts", "proto", "scheduler", "model", "telemetry"]),
    ("client", &["function", "proto", "model"]),
    ("worker", &["client", "function", "proto", "model"]),
    ("cli", &["worker", "client", "function", "proto", "files", "model"]),
    (
        "app",
        &[
            "api",
            "artifacts",
            "config",
            "files",
            "function",
            "model",
            "pool",
            "proto",
            "runners",
            "scheduler",
            "store",
            "telemetry",
        ],
    ),
    ("server", &["app", "config", "function", "telemetry"]),
    ("command_line", &["app", "cli", "config", "runners", "store", "telemetry"]),
];

/// Words for concepts that have another name in this project.
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

/// Path and text of every Rust file below the folders.
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
fn no_file_imports_another_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let imports = Imports::read(&root);
    let files = imports.by_file();
    assert!(files.values().flatten().count() > 300, "the reader finds the imports");
    let mut faults = Vec::new();
    for circle in imports.circles() {
        faults.push(format!("these files import each other in a circle ({}):", circle.len()));
        for file in &circle {
            let targets = files[file].iter().filter(|target| circle.contains(*target));
            let targets: Vec<_> = targets.map(|target| shown(target, &root)).collect();
            faults.push(format!("  {} imports {}", shown(file, &root), targets.join(", ")));
        }
    }
    fail_with(&faults);
}

#[test]
fn a_circle_between_two_files_is_found() {
    let root = tempfile::tempdir().expect("a directory");
    for (name, text) in [
        ("lib.rs", "mod first; mod second; mod third;"),
        ("first.rs", "use crate::second::Second; pub struct First(Second);"),
        ("second.rs", "pub struct Second; impl Second { fn third() -> crate::third::Third { todo() } }"),
        ("third.rs", "use super::first; pub struct Third(first::First); #[cfg(test)] use super::first::First;"),
    ] {
        fs::write(root.path().join(name), text).expect("a file is written");
    }
    let circles = Imports::read(root.path());
    let circles = circles.circles();
    let names: Vec<Vec<_>> = circles.iter().map(|c| c.iter().map(|file| shown(file, root.path())).collect()).collect();
    assert_eq!(names, [["first.rs", "second.rs", "third.rs"]]);
}

fn shown(file: &Path, root: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

#[test]
fn every_module_is_in_the_layering() {
    let mut faults = Vec::new();
    for (path, _) in all(&["src"]) {
        let module = path.strip_prefix("src/").and_then(|rest| rest.split(['/', '.']).next()).unwrap_or_default();
        if !["lib", "main"].contains(&module) && !MAY_IMPORT.iter().any(|(name, _)| *name == module) {
            faults.push(format!("{path}: {module} is not in MAY_IMPORT"));
        }
    }
    fail_with(&faults);
}

#[test]
fn every_file_starts_with_its_purpose_and_is_of_readable_length() {
    let mut faults = Vec::new();
    for (path, text) in all(&["src", "tests"]) {
        if !text.starts_with("//! ") && path != "src/lib.rs" {
            faults.push(format!("{path}: does not start with a `//!` comment"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{path}: has {lines} lines"));
        }
    }
    fail_with(&faults);
}

#[test]
fn synonyms_and_unfinished_marks_are_absent() {
    let mut faults = Vec::new();
    for (path, text) in all(&["src"]) {
        for (number, line) in text.lines().enumerate() {
            // The name of a trait that hyper asks for.
            let lower = line.replace("hyper::rt::Executor", "").to_lowercase();
            let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
            for synonym in SYNONYMS {
                if words.contains(&synonym) || (synonym.contains(' ') && lower.contains(synonym)) {
                    faults.push(format!("{path}:{}: uses the synonym {synonym}", number + 1));
                }
            }
            // Concatenated, so that this test does not match its own source.
            for mark in [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")] {
                if line.contains(mark) {
                    faults.push(format!("{path}:{}: contains {mark}", number + 1));
                }
            }
        }
    }
    fail_with(&faults);
}

#[test]
fn the_lock_file_has_one_version_of_each_core_crate() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).expect("a lock file");
    for name in ["tonic", "prost", "tokio", "hyper", "h2"] {
        let count = lock.matches(&format!("\nname = \"{name}\"\n")).count();
        assert_eq!(count, 1, "{count} versions of {name}");
    }
}
