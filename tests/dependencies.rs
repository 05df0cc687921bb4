//! Dependencies: their licences, banned crates, and their source.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Accepted licences: they require no more than a notice.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not be dependencies, with the reason.
const BANNED: [(&str, &str); 8] = [
    ("openssl", "TLS uses rustls with ring; no library of the system is linked"),
    ("openssl-sys", "TLS uses rustls with ring; no library of the system is linked"),
    ("native-tls", "TLS uses rustls with ring; no library of the system is linked"),
    ("aws-lc-rs", "a second cryptographic library, and its build requires cmake"),
    ("aws-lc-sys", "a second cryptographic library, and its build requires cmake"),
    ("protobuf-src", "the contract is compiled without protoc"),
    ("async-std", "a second asynchronous runtime, and unmaintained"),
    ("serde_yaml", "unmaintained"),
];

/// The packages that `cargo metadata` lists for this platform.
#[expect(clippy::disallowed_methods, reason = "cargo lists the dependencies")]
fn packages() -> Vec<Value> {
    let cargo = |arguments: &[&str]| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(env!("CARGO")).args(arguments).current_dir(root).output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let version = String::from_utf8(cargo(&["-vV"])).expect("a text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let found = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform", host]);
    let found: Value = serde_json::from_slice(&found).expect("JSON");
    found["packages"].as_array().expect("packages").clone()
}

/// Whether the accepted licences satisfy an SPDX expression.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

/// Evaluates alternatives with `OR` and removes them from `words`; `None` if they are no valid expression.
fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut satisfied = all_of(words)?;
    while let ["OR", rest @ ..] = words {
        *words = rest;
        satisfied |= all_of(words)?;
    }
    Some(satisfied)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut satisfied = one(words)?;
    while let ["AND", rest @ ..] = words {
        *words = rest;
        satisfied &= one(words)?;
    }
    Some(satisfied)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    match words {
        ["(", rest @ ..] => {
            *words = rest;
            let satisfied = any_of(words)?;
            let [")", rest @ ..] = words else { return None };
            *words = rest;
            Some(satisfied)
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(LICENCES.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        [licence, rest @ ..] => {
            *words = rest;
            Some(LICENCES.contains(licence))
        }
        [] => None,
    }
}

#[test]
fn all_licences_are_accepted() {
    let mut faults = Vec::new();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence) {
            faults.push(format!("{} {}: {licence:?}", package["name"], package["version"]));
        }
    }
    assert!(faults.is_empty(), "licences that are not accepted:\n{}", faults.join("\n"));
}

#[test]
fn no_banned_crate_is_a_dependency() {
    let found: Vec<String> =
        packages().iter().filter_map(|package| Some(package["name"].as_str()?.to_owned())).collect();
    assert!(found.iter().any(|name| name == "tonic"), "the list does not belong to this crate");
    for (name, reason) in BANNED {
        assert!(!found.iter().any(|found| found == name), "{name} is a dependency: {reason}");
    }
}

#[test]
fn all_crates_come_from_the_public_registry() {
    for package in packages() {
        let (name, source) = (&package["name"], package["source"].as_str());
        let registry = source.is_some_and(|source| source.starts_with("registry+https://github.com/rust-lang/"));
        assert!(registry || (source.is_none() && name == "lineshaft"), "{name} comes from {source:?}");
    }
}

#[test]
fn licence_expressions_are_evaluated() {
    for allowed in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
    for refused in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT OR", "(MIT", "MIT MIT", "Apache-2.0 WITH Other-exception"] {
        assert!(!is_allowed(refused), "{refused}");
    }
}
