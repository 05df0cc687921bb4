//! What is built in: licences that may be, and crates that must not be.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than a notice.
const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that would change what a machine needs, or what has to be trusted; with the reason.
const BANNED: [(&str, &str); 8] = [
    ("openssl", "TLS is rustls with ring: nothing of the system is linked"),
    ("openssl-sys", "TLS is rustls with ring: nothing of the system is linked"),
    ("native-tls", "TLS is rustls with ring: nothing of the system is linked"),
    ("aws-lc-rs", "a second cryptographic library, and a build that needs cmake"),
    ("aws-lc-sys", "a second cryptographic library, and a build that needs cmake"),
    ("protobuf-src", "the contract is compiled without protoc"),
    ("async-std", "one runtime, and one that is maintained"),
    ("serde_yaml", "no longer maintained"),
];

#[expect(clippy::disallowed_methods, reason = "cargo knows what is built")]
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

/// Whether an SPDX expression can be met by what is allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

/// `None`: not an expression.
fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut met = all_of(words)?;
    while let ["OR", rest @ ..] = words {
        *words = rest;
        met |= all_of(words)?;
    }
    Some(met)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut met = one(words)?;
    while let ["AND", rest @ ..] = words {
        *words = rest;
        met &= one(words)?;
    }
    Some(met)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    match words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any_of(words)?;
            let [")", rest @ ..] = words else { return None };
            *words = rest;
            Some(met)
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
fn every_licence_is_one_that_may_be() {
    let mut faults = Vec::new();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence) {
            faults.push(format!("{} {}: {licence:?}", package["name"], package["version"]));
        }
    }
    assert!(faults.is_empty(), "licences that nobody has agreed to:\n{}", faults.join("\n"));
}

#[test]
fn no_crate_is_built_in_that_must_not_be() {
    let found: Vec<String> =
        packages().iter().filter_map(|package| Some(package["name"].as_str()?.to_owned())).collect();
    assert!(found.iter().any(|name| name == "tonic"), "the list is not that of this crate");
    for (name, reason) in BANNED {
        assert!(!found.iter().any(|found| found == name), "{name} is built in: {reason}");
    }
}

#[test]
fn every_crate_comes_from_the_public_registry() {
    for package in packages() {
        let (name, source) = (&package["name"], package["source"].as_str());
        let registry = source.is_some_and(|source| source.starts_with("registry+https://github.com/rust-lang/"));
        assert!(registry || (source.is_none() && name == "lineshaft"), "{name} comes from {source:?}");
    }
}

#[test]
fn expressions_of_licences_are_read_as_they_are_meant() {
    for allowed in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
    for refused in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT OR", "(MIT", "MIT MIT", "Apache-2.0 WITH Other-exception"] {
        assert!(!is_allowed(refused), "{refused}");
    }
}
