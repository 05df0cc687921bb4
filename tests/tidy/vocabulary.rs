//! Names and words that this project no longer uses, with what to write instead.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fail_with;

/// Retired files and folders, by the end of their path.
const FILES: &[&str] = &[
    "api/aside.rs",
    "app/asides.rs",
    "api/probes.rs",
    "api/scrapes.rs",
    "api/guard.rs",
    "api/sniff.rs",
    "api/arrival.rs",
    "api/ticks.rs",
    "api/traced.rs",
    "api/admission.rs",
    "api/auth/entry.rs",
    "api/auth/access.rs",
    "api/auth/table.rs",
    "api/auth/ledger.rs",
    "api/auth/limits.rs",
    "api/auth/failures.rs",
    "api/http/carry.rs",
    "api/http/show.rs",
    "api/http/calls.rs",
    "api/http/contract.rs",
    "api/http/answer.rs",
    "api/tasks/sending.rs",
    "api/tasks/follow.rs",
    "api/tasks/stream.rs",
    "scheduler/patience.rs",
    "scheduler/keeper.rs",
    "scheduler/requests.rs",
    "core/lanes.rs",
    "pool/lanes.rs",
    "pool/tally.rs",
    "pool/scope.rs",
    "store/mark.rs",
    "store/wal.rs",
    "store/files.rs",
    "store/log_damage.rs",
    "store/samples.rs",
    "store/conformance.rs",
    "store/journal_check.rs",
    "telemetry/repeats.rs",
    "telemetry/vitals.rs",
    "config/place.rs",
    "config/advice.rs",
    "cli/say.rs",
    "cli/show.rs",
    "demo/story.rs",
    "bench/ceiling.rs",
    "bench/sink.rs",
    "it/promises.rs",
    "it/abuse.rs",
    "it/wire.rs",
    "it/silence.rs",
    "it/observed.rs",
    "it/raw.rs",
    "it/serving.rs",
    "security/walls.rs",
    "security/floods.rs",
    "security/plain.rs",
];

/// Retired identifiers and what replaced them.
const IDENTIFIERS: &[(&str, &str)] = &[
    ("Guest", "OpenConnection"),
    ("Doings", "Activity"),
    ("Rewound", "PrefixedIo"),
    ("Arriving", "TimeoutBody"),
    ("Guarded", "DeadlineBody"),
    ("Following", "TracedBody"),
    ("Lasting", "LeasedBody"),
    ("Shaken", "TlsConnection"),
    ("Believed", "CertificateWatch"),
    ("Unfit", "KeyMismatch"),
    ("Reloaded", "WatchedFiles"),
    ("Stay", "StreamLease"),
    ("Gate", "CallerExtractor"),
    ("Somewhere", "AnyNamespace"),
    ("Everywhere", "AllNamespaces"),
    ("Reach", "NamespaceScope"),
    ("STAY_BEHIND", "HOP_BY_HOP_HEADERS"),
    ("crowd", "check_complexity"),
    ("Told", "ErrorParts"),
    ("Wishes", "Overrides"),
    ("Usual", "Defaults"),
    ("Sending", "SendSpan"),
    ("AnswersHeldUp", "ProjectionUnavailable"),
    ("SchedulerSilent", "SchedulerUnresponsive"),
    ("WatchEnds", "WatchDrained"),
    ("DrainWaits", "DrainPending"),
    ("BEHIND_MAX", "PROJECTION_STALL_TIMEOUT"),
    ("ANSWER_MAX", "QUERY_TIMEOUT"),
    ("catch_up", "wait_for_revision"),
    ("mended", "wait_until_writable"),
    ("hurry", "flush"),
    ("twin", "duplicate"),
    ("Surroundings", "WorkerContext"),
    ("Crew", "Workers"),
    ("leavers", "leaving"),
    ("Tally", "PriorityGate"),
    ("loosen", "mark_unsynced"),
    ("KeptPool", "PoolOverride"),
    ("PoolBounds", "PoolSettings"),
    ("Standing", "RecoveredTask"),
    ("set_aside", "quarantine"),
    ("Courier", "BatchWorker"),
    ("last_words", "shutdown_hooks"),
    ("Allowance", "RateLimit"),
    ("Unready", "NotReady"),
    ("Follows", "TraceMode"),
    ("strangers", "unknown"),
    ("look_after", "run_store_command"),
    ("ALONE", "LOCAL_COMMANDS"),
    ("Bill", "ResourceUsage"),
    ("PATIENCE", "TIMEOUT"),
    ("Mortal", "KillOnDrop"),
    ("Place", "one meaning each"),
    ("Lanes", "RunQueue or ReadyQueue"),
    ("Story", "EventLog"),
    ("Vitals", "Liveness"),
];

/// Retired wording and plain words for it.
const PHRASES: &[(&str, &str)] = &[
    ("whoever", "name the party"),
    ("of the house", "name the thing"),
    ("house's", "name the thing"),
    ("for ever", "no limit"),
    ("exists already with another content", "already exists with different content"),
    ("may not do that", "permission denied"),
    ("signal hurries", "signal again to stop immediately"),
    ("answers probes", "health endpoint listening"),
    ("is to be had", "is available"),
    ("that did not go well", "failed"),
    ("talk to standard error", "messages to stderr"),
    ("say --yes", "pass --yes"),
    ("to be told", "reported"),
    ("is told of", "receives"),
];

/// Files that must quote what is retired.
const EXEMPT: [&str; 2] = ["tests/tidy/vocabulary.rs", "CHANGELOG.md"];

const FOLDERS: [&str; 5] = ["src", "tests", "proto", "docs", "helm"];

fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("build.rs")];
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let is_installed = path.ends_with("node_modules") || path.ends_with("target");
            if path.is_dir() && !is_installed {
                folders.push(path);
            } else if path.is_file() {
                paths.push(path);
            }
        }
    }
    let shown = |path: &Path| path.strip_prefix(root).expect("below the root").display().to_string();
    let texts = paths.into_iter().map(|path| (shown(&path), fs::read_to_string(&path).unwrap_or_default()));
    texts.filter(|(path, _)| !EXEMPT.contains(&path.as_str())).collect()
}

#[test]
fn retired_file_names_stay_retired() {
    let is_retired = |path: &str| FILES.iter().any(|retired| path.ends_with(&format!("/{retired}")));
    let found: Vec<_> = texts().into_iter().filter(|(path, _)| is_retired(path)).map(|(path, _)| path).collect();
    fail_with(&found);
}

#[test]
fn retired_identifiers_stay_retired() {
    let mut faults = Vec::new();
    for (path, text) in
        texts().iter().filter(|(path, _)| path.rsplit('.').next().is_some_and(|kind| ["rs", "proto"].contains(&kind)))
    {
        for (number, line) in text.lines().enumerate() {
            for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                if let Some((_, instead)) = IDENTIFIERS.iter().find(|(retired, _)| *retired == word) {
                    faults.push(format!("{path}:{}: {word}: write {instead}", number + 1));
                }
            }
        }
    }
    fail_with(&faults);
}

#[test]
fn retired_phrases_stay_retired() {
    let mut faults = Vec::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for (retired, instead) in PHRASES.iter().filter(|(retired, _)| has_phrase(&line, retired)) {
                faults.push(format!("{path}:{}: \"{retired}\": write \"{instead}\"", number + 1));
            }
        }
    }
    fail_with(&faults);
}

/// Whether the line has the phrase, and not only as the start of a longer word.
fn has_phrase(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(at, _)| !line[at + phrase.len()..].starts_with(char::is_alphabetic))
}
