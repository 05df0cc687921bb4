//! Backups and checks of a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::stores::{backup, check, fold_all, listed, long_history, open_sqlite, page_of, read_all, temp_dir, write};
use crate::model::{Revision, TaskFilter};
use crate::store::paths::{JOURNAL, PROJECTION};

#[test]
fn a_backup_during_writes_and_trims_is_consistent() {
    let directory = temp_dir();
    let data = directory.path().join("data %20?");
    let (store, _) = open_sqlite(&data).unwrap();
    let history = long_history();
    let ended = Arc::new(AtomicBool::new(false));
    let writing = {
        let (store, ended, commits) = (store.clone(), Arc::clone(&ended), history.commits(9));
        move || {
            for commits in commits.chunks(5) {
                write(&store, commits);
                let keep = commits.last().unwrap().last().0.saturating_sub(100);
                store.journal.trim(Revision(keep)).unwrap();
            }
            ended.store(true, Ordering::Release);
        }
    };
    let writer = std::thread::Builder::new().spawn(writing).unwrap();
    let mut copies = Vec::new();
    while copies.is_empty() || (!ended.load(Ordering::Acquire) && copies.len() < 8) {
        let to = directory.path().join(format!("copy-{}", copies.len()));
        copies.push((backup(&data, &to).unwrap(), to));
    }
    writer.join().unwrap();
    for (report, to) in copies {
        assert!(!report.in_use);
        assert_eq!(check(&to).unwrap(), report);
        let (store, recovery) = open_sqlite(&to).unwrap();
        assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
        let until = usize::try_from(report.end).unwrap();
        let trimmed = usize::try_from(report.trimmed).unwrap();
        assert_eq!(read_all(&store, store.journal.oldest()).unwrap(), history.events[trimmed..until]);
        store.projection.checkpoint().unwrap();
        let expected: Vec<_> = fold_all(&history.events[..until]).values().rev().map(listed).collect();
        assert_eq!(store.projection.list(&TaskFilter::default(), page_of(1000), None).unwrap().tasks, expected);
    }
    assert!(check(&data).unwrap().in_use);
    drop(store);
    let report = check(&data).unwrap();
    assert!(!report.in_use);
    assert_eq!(report.end, history.events.len() as u64);
}

#[test]
fn an_operation_reports_each_of_its_parts_to_the_end() {
    let directory = temp_dir();
    let (data, to) = (directory.path().join("data"), directory.path().join("copy"));
    let (store, _) = open_sqlite(&data).unwrap();
    write(&store, &long_history().commits(9));
    drop(store);
    let mut parts: Vec<(&str, u64, Option<u64>)> = Vec::new();
    let mut report = |what, done, total| match parts.last_mut().filter(|last| last.0 == what && last.1 < done) {
        Some(last) => *last = (what, done, total),
        None => parts.push((what, done, total)),
    };
    let whole = crate::store::backup(&data, &to, &mut report).unwrap();
    std::fs::remove_file(data.join(PROJECTION)).unwrap();
    crate::store::rebuild(&data, &mut report).unwrap();
    assert!(parts.iter().all(|(_, done, total)| total.is_none_or(|total| total == *done)), "{parts:?}");
    let mut names: Vec<_> = parts.iter().map(|(what, ..)| *what).collect();
    names.dedup();
    let checked = ["events checked", "tasks checked"];
    assert_eq!(names, [&checked[..], &["pages copied"], &checked[..], &["events replayed"]].concat());
    assert_eq!((parts[0].1, parts[1].1), (whole.end, whole.tasks.values().sum()));
    assert_eq!(parts.last().unwrap().1, whole.end);
}

#[test]
fn a_flipped_byte_of_a_backup_is_reported_or_harmless() {
    let directory = temp_dir();
    let (data, to) = (directory.path().join("data"), directory.path().join("copy"));
    let (store, _) = open_sqlite(&data).unwrap();
    write(&store, &long_history().commits(9));
    let whole = backup(&data, &to).unwrap();
    for file in [JOURNAL, PROJECTION] {
        let clean = std::fs::read(to.join(file)).unwrap();
        for offset in (0..100).step_by(9).chain((100..clean.len()).step_by(4_999)) {
            let mut bytes = clean.clone();
            bytes[offset] ^= 0x41;
            std::fs::write(to.join(file), &bytes).unwrap();
            match check(&to) {
                Ok(found) => assert_eq!(found, whole, "{file} byte {offset}"),
                Err(error) => assert!(error.to_string().contains(file), "{file} byte {offset}: {error}"),
            }
        }
        std::fs::write(to.join(file), &clean).unwrap();
    }
    assert_eq!(check(&to).unwrap(), whole, "a check changes nothing");
}

#[test]
fn a_copy_never_replaces_anything_and_what_is_no_store_is_said() {
    let directory = temp_dir();
    let data = directory.path().join("data");
    drop(open_sqlite(&data).unwrap());
    let error = backup(&data, &data).unwrap_err().to_string();
    assert!(error.contains("it already exists"), "{error}");
    let nothing = directory.path().join("nothing");
    let error = backup(&nothing, &directory.path().join("copy")).unwrap_err().to_string();
    assert!(error.contains("nothing/journal.db") && error.contains("there is no store"), "{error}");
    assert!(!directory.path().join("copy").exists() && !directory.path().join("copy.partial").exists());
}
