//! Tests of the store and the cleaner with a directory, and of what attempts write.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{ArtifactError, ArtifactStore, AttemptArtifacts, Cleaner, Options, Owner};
use crate::model::{
    ArtifactName, Artifacts, Clock, Event, Failure, FailureReason, Holds, Namespace, Revision, TaskChange, TaskEvent,
    TaskId, TaskOptions, TaskSpec, TaskState, Timestamp,
};

/// A clock that stands still.
#[derive(Default)]
struct Still(Mutex<Timestamp>);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

/// The end of a task: when, and its artifacts.
type End = Option<(Timestamp, Option<Arc<Artifacts>>)>;

/// A store, and what is durable about tasks: `None` is unfinished.
struct Fixture {
    directory: TempDir,
    store: ArtifactStore,
    tasks: Arc<Mutex<BTreeMap<TaskId, End>>>,
    clock: Arc<Still>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ArtifactStore::new(Options::sample(directory.path()));
        Self { directory, store, tasks: Arc::default(), clock: Arc::default() }
    }

    fn attempt(&self, fence: u64) -> AttemptArtifacts {
        let spec =
            TaskSpec { id: id(), options: Arc::new(TaskOptions::sample()), payload: Box::default(), extras: None };
        AttemptArtifacts::new(&self.store, Arc::new(spec), fence)
    }

    /// Stores an artifact for each name, which is its content.
    async fn stored(&self, fence: u64, names: &[&str]) -> Arc<Artifacts> {
        let attempt = self.attempt(fence);
        for name in names {
            attempt.create(name, None).unwrap().write_all(name.as_bytes()).unwrap();
        }
        attempt.store().await.unwrap().unwrap()
    }

    fn cleaner(&self) -> Cleaner {
        let tasks = self.tasks.clone();
        let owner = move |task: TaskId| {
            let owner = match tasks.lock().get(&task) {
                None => Owner::Absent,
                Some(None) => Owner::Unfinished,
                Some(Some((at, artifacts))) => Owner::Finished { at: *at, artifacts: artifacts.clone() },
            };
            async { Ok(owner) }.boxed()
        };
        Cleaner::new(self.store.clone(), Arc::new(owner), self.clock.clone())
    }

    async fn check(&self) {
        self.cleaner().check(&id()).await;
    }

    fn set(&self, end: End) {
        self.tasks.lock().insert(id(), end);
    }

    /// The end of the task has become durable.
    fn observe_end(&self) {
        let event = TaskEvent {
            revision: Revision(1),
            at: Timestamp::ZERO,
            task: id(),
            options: Arc::new(TaskOptions::sample()),
            previous: TaskState::Completed,
            state: TaskState::Completed,
            attempt: 1,
            holds: Holds::NONE,
            hold: None,
            change: TaskChange::Deleted,
        };
        self.store.observe(&[Event::Task(event)]);
    }

    async fn read(&self, fence: u64, name: &str, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
        let (namespace, name) = (Namespace::default(), ArtifactName::parse(name).unwrap());
        match self.store.read((&namespace, &id()), fence, &name, range).await {
            Ok(pieces) => Some(pieces.try_collect::<Vec<_>>().await.unwrap().concat()),
            Err(error) => {
                assert!(error.is_missing(), "{error}");
                None
            }
        }
    }

    /// Files below the directory, and those that are empty directories.
    fn files(&self) -> Vec<PathBuf> {
        fn list(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() { list(&entry, found) } else { found.push(entry) }
            }
        }
        let mut found = Vec::new();
        list(self.directory.path(), &mut found);
        found
    }
}

fn id() -> TaskId {
    TaskId::parse("t").unwrap()
}

#[tokio::test]
async fn artifacts_are_stored_with_size_and_checksum_and_read_in_parts() {
    let fixture = Fixture::new();
    let attempt = fixture.attempt(1);
    let content: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut file = attempt.create("一覧.bin", Some("application/x-list")).unwrap();
    file.write_all(&content).unwrap();
    drop(attempt.create("empty.csv", None).unwrap());
    assert_eq!(fixture.files().len(), 0, "files without names");
    let artifacts = attempt.store().await.unwrap().unwrap();
    let [empty, list] = &*artifacts.files else { panic!("{artifacts:?}") };
    assert_eq!((empty.name.as_str(), &*empty.content_type, empty.bytes), ("empty.csv", "text/csv", 0));
    assert_eq!((list.name.as_str(), &*list.content_type), ("一覧.bin", "application/x-list"));
    assert_eq!((list.bytes, &list.sha256[..]), (content.len() as u64, digest(&SHA256, &content).as_ref()));
    assert_eq!(fixture.read(1, "一覧.bin", 0..700_000).await.unwrap(), content);
    assert_eq!(fixture.read(1, "一覧.bin", 300_000..300_010).await.unwrap(), content[300_000..300_010]);
    assert_eq!(fixture.read(2, "一覧.bin", 0..1).await, None, "another attempt");
    assert_eq!(fixture.store.counts().stored.load(Ordering::Relaxed), 2);
    assert!(attempt.store().await.unwrap().is_none(), "they are stored once");
}

#[tokio::test]
async fn a_part_that_was_opened_is_read_to_its_end_after_a_removal() {
    let fixture = Fixture::new();
    let attempt = fixture.attempt(1);
    attempt.create("a", None).unwrap().write_all(&vec![7; 600_000]).unwrap();
    attempt.store().await.unwrap();
    let name = ArtifactName::parse("a").unwrap();
    let opened = fixture.store.read((&Namespace::default(), &id()), 1, &name, 0..600_000).await.unwrap();
    // There is no such task.
    fixture.check().await;
    assert_eq!(fixture.files().len(), 0);
    assert_eq!(opened.try_collect::<Vec<_>>().await.unwrap().concat(), vec![7; 600_000]);
}

#[tokio::test]
async fn uploads_under_way_share_the_limits_of_their_attempt() {
    let fixture = Fixture::new();
    let spec = TaskSpec { id: id(), options: Arc::new(TaskOptions::sample()), payload: Box::default(), extras: None };
    let upload = async |name: &str| {
        fixture.store.upload(&spec, 1, ArtifactName::parse(name).unwrap(), "text/plain".into()).await
    };
    let part = |bytes| bytes::Bytes::from(vec![0; bytes]);
    let [mut one, mut two] = [upload("one").await.unwrap(), upload("two").await.unwrap()];
    one.write(part(1 << 20)).await.unwrap();
    two.write(part(1 << 19)).await.unwrap();
    let refused = two.write(part(1)).await.unwrap_err().to_string();
    assert!(refused.starts_with("the artifacts have more than 1572864 bytes together"), "{refused}");
    let three = upload("three").await.unwrap();
    let refused = upload("four").await.map(drop).unwrap_err().to_string();
    assert!(refused.starts_with("more than 3 artifacts"), "{refused}");
    drop((two, three));
    assert_eq!(one.finish().await.unwrap().bytes, 1 << 20);
    upload("two").await.unwrap().write(part(1 << 19)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_an_attempt_that_stores_nothing() {
    let fixture = Fixture::new();
    let attempt = fixture.attempt(1);
    let mut file = attempt.create("a", None).unwrap();
    file.write_all(b"half").unwrap();
    drop((attempt, file));
    assert_eq!(fixture.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn limits_are_named_and_another_attempt_would_exceed_them_too() {
    let fixture = Fixture::new();
    let attempt = fixture.attempt(1);
    let mut first = attempt.create("first", None).unwrap();
    let error = first.write_all(&vec![0; (1 << 20) + 1]).unwrap_err();
    let expected = "artifact \"first\" has more than 1048576 bytes, which is the limit (`artifacts.file_bytes`)";
    assert_eq!(error.to_string(), expected);
    first.write_all(&vec![0; 1 << 20]).unwrap();
    let mut second = attempt.create("second", None).unwrap();
    second.write_all(&vec![0; 1 << 19]).unwrap();
    let error = second.write_all(&[0]).unwrap_err();
    let expected = "the artifacts have more than 1572864 bytes together, which is the limit (`artifacts.task_bytes`)";
    assert_eq!(error.to_string(), expected);
    assert!(attempt.create("second", None).unwrap_err().to_string().contains("\"second\" was created twice"));
    drop(attempt.create("third", None).unwrap());
    let failure = Failure::from(attempt.create("fourth", None).unwrap_err());
    assert_eq!(failure.message, "more than 3 artifacts, which is the limit (`artifacts.count`)");
    assert!(failure.reason == FailureReason::ResultTooLarge && !failure.retryable);
    let failure = Failure::from(attempt.create("../x", None).unwrap_err());
    let expected = "name of the artifact \"../x\" contains the character '/', not allowed are `/`, `\\`, control \
         characters and those that change the direction of text";
    assert_eq!((failure.message.as_str(), failure.reason), (expected, FailureReason::HandlerError));
}

#[tokio::test]
async fn a_copy_counts_instead_of_the_one_that_it_replaces() {
    let fixture = Fixture::new();
    let attempt = fixture.attempt(1);
    for byte in 0..3 {
        attempt.copy("a", None, &*vec![byte; 1 << 20]).unwrap();
    }
    attempt.copy("b", None, &*vec![0; 1 << 19]).unwrap();
    let error = attempt.copy("c", None, &[0][..]).unwrap_err();
    assert!(matches!(error, ArtifactError::TaskTooLarge { limit: 1_572_864 }), "{error}");
    assert_eq!(attempt.store().await.unwrap().unwrap().files.len(), 2);
}

#[tokio::test]
async fn a_file_of_a_program_counts_with_what_it_contains_when_it_is_copied() {
    let fixture = Fixture::new();
    let path = fixture.directory.path().join("left.txt");
    fs::write(&path, "left").unwrap();
    let attempt = fixture.attempt(1);
    attempt.add("left.txt", fs::File::open(&path).unwrap()).unwrap();
    let error = attempt.add("dir", fs::File::open(fixture.directory.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("is not a regular file"), "{error}");
    // Another process still has it.
    fs::write(&path, vec![0; (1 << 20) + 1]).unwrap();
    let failure = Failure::from(attempt.store().await.unwrap_err());
    assert_eq!(failure.reason, FailureReason::ResultTooLarge, "{}", failure.message);
    fs::remove_file(path).unwrap();
    tokio::task::yield_now().await;
}

/// What a file without a name has in the end: the same number, and one name.
#[tokio::test]
async fn a_file_of_the_server_is_moved_to_the_store_and_takes_no_more() {
    let fixture = Fixture::new();
    let attempt = fixture.attempt(1);
    let mut file = attempt.create("a", None).unwrap();
    file.write_all(b"complete").unwrap();
    let written = file.file.lock().as_ref().unwrap().inode();
    attempt.copy("b", None, &b"copied"[..]).unwrap();
    let artifacts = attempt.store().await.unwrap().unwrap();
    file.write_all(b"late").unwrap_err();
    assert_eq!(fixture.read(1, "a", 0..12).await.unwrap(), b"complete");
    assert_eq!(artifacts.files[0].sha256, digest(&SHA256, b"complete").as_ref());
    assert_eq!(artifacts.files[1].sha256, digest(&SHA256, b"copied").as_ref());
    let found: Vec<_> = fixture.files().iter().map(|path| fs::metadata(path).unwrap()).collect();
    assert_eq!((found.len(), fixture.store.counts().stored.load(Ordering::Relaxed)), (2, 2));
    assert!(found.iter().any(|found| found.ino() == written), "it was copied");
    assert!(found.iter().all(|found| found.nlink() == 1 && found.mode() & 0o777 == 0o600), "{found:?}");
}

#[tokio::test]
async fn a_file_of_a_program_is_copied_since_it_can_have_other_names() {
    let fixture = Fixture::new();
    let left = tempfile::tempdir().unwrap();
    let [path, other_name] = ["left", "other"].map(|name| left.path().join(name));
    fs::write(&path, "left").unwrap();
    fs::hard_link(&path, &other_name).unwrap();
    let attempt = fixture.attempt(1);
    attempt.add("left", fs::File::open(&path).unwrap()).unwrap();
    let artifacts = attempt.store().await.unwrap().unwrap();
    fs::write(&other_name, "evil").unwrap();
    assert_eq!(fixture.read(1, "left", 0..9).await.unwrap(), b"left");
    assert_eq!(artifacts.files[0].sha256, digest(&SHA256, b"left").as_ref());
    assert_eq!(fs::metadata(&fixture.files()[0]).unwrap().nlink(), 1);
}

#[tokio::test]
async fn a_file_is_copied_to_another_file_system() {
    let (fixture, shared) = (Fixture::new(), Path::new("/dev/shm"));
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let Ok(elsewhere) = tempfile::tempdir_in(shared) else { return };
    if device(elsewhere.path()) == device(fixture.directory.path()) {
        return;
    }
    fs::create_dir(fixture.directory.path().join("objects")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), fixture.directory.path().join("objects/default")).unwrap();
    let attempt = fixture.attempt(1);
    attempt.create("a", None).unwrap().write_all(&vec![7; 600_000]).unwrap();
    let artifacts = attempt.store().await.unwrap().unwrap();
    assert_eq!(artifacts.files[0].sha256, digest(&SHA256, &vec![7; 600_000]).as_ref());
    assert_eq!(fixture.read(1, "a", 0..600_000).await.unwrap(), vec![7; 600_000]);
    assert_eq!(fixture.files().len(), 1);
    assert_eq!(fixture.store.counts().stored.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_upload_replaces_an_earlier_one_with_its_name() {
    let fixture = Fixture::new();
    let spec = TaskSpec { id: id(), options: Arc::new(TaskOptions::sample()), payload: Box::default(), extras: None };
    for content in ["first", "second"] {
        let name = ArtifactName::parse("a").unwrap();
        let mut upload = fixture.store.upload(&spec, 1, name, "text/plain".into()).await.unwrap();
        upload.write(content.into()).await.unwrap();
        let stored = upload.finish().await.unwrap();
        assert_eq!(stored.sha256, digest(&SHA256, content.as_bytes()).as_ref());
        assert_eq!(fixture.read(1, "a", 0..9).await.unwrap(), content.as_bytes());
    }
    assert_eq!(fixture.files().len(), 1);
}

#[tokio::test]
async fn only_what_the_finished_task_names_is_kept() {
    let fixture = Fixture::new();
    fixture.stored(1, &["a", "b"]).await;
    let kept = fixture.stored(2, &["a", "b"]).await;
    fixture.set(None);
    fixture.check().await;
    assert!(fixture.read(1, "a", 0..1).await.is_some(), "the task is unfinished");
    let only_a = Artifacts { fence: 2, files: kept.files[..1].into() };
    fixture.set(Some((Timestamp::ZERO, Some(Arc::new(only_a)))));
    fixture.check().await;
    assert_eq!(fixture.files().len(), 1);
    assert_eq!(fixture.read(2, "a", 0..1).await.unwrap(), b"a");
    assert_eq!(fixture.store.counts().unnamed.load(Ordering::Relaxed), 3);
    fixture.set(Some((Timestamp::ZERO, None)));
    fixture.observe_end();
    fixture.check().await;
    assert_eq!(fixture.files().len(), 0);
}

#[tokio::test]
async fn artifacts_go_with_their_task_and_at_their_age() {
    let fixture = Fixture::new();
    let artifacts = fixture.stored(1, &["a", "b"]).await;
    fixture.set(Some((Timestamp(5), Some(artifacts.clone()))));
    let age = fixture.store.age();
    for (now, files) in [(Timestamp(4).after(age), 2), (Timestamp(5).after(age), 0)] {
        *fixture.clock.0.lock() = now;
        for task in fixture.store.known().due(now) {
            fixture.cleaner().check(&task).await;
        }
        assert_eq!(fixture.files().len(), files, "at {now:?}");
    }
    assert_eq!(fixture.store.counts().expired.load(Ordering::Relaxed), 2);
    fixture.stored(2, &["c"]).await;
    fixture.tasks.lock().clear();
    fixture.check().await;
    assert_eq!((fixture.files().len(), fixture.store.counts().deleted.load(Ordering::Relaxed)), (0, 1));
    assert!(fixture.store.known().due(Timestamp(u64::MAX)).is_empty(), "nothing is known any more");
}

#[tokio::test]
async fn what_a_crash_left_is_found_at_the_start() {
    let before = Fixture::new();
    let artifacts = before.stored(1, &["a"]).await;
    before.stored(2, &["a"]).await;
    let object = before.files().into_iter().find(|file| file.parent().unwrap().ends_with("2")).unwrap();
    fs::write(object.with_file_name("00#1"), "unfinished upload").unwrap();
    fs::create_dir_all(before.directory.path().join("objects/empty/t/1")).unwrap();
    fs::create_dir_all(before.directory.path().join("staging")).unwrap();
    fs::write(before.directory.path().join("staging/0"), "").unwrap();
    // As a new server.
    let store = ArtifactStore::new(Options::sample(before.directory.path()));
    let after = Fixture { store, ..before };
    after.set(Some((Timestamp::ZERO, Some(artifacts))));
    assert_eq!(after.store.find_leftovers().await.tasks, [(Namespace::default(), id())]);
    after.store.expect(&Namespace::default(), &id());
    after.check().await;
    assert_eq!(after.files().len(), 1, "{:?}", after.files());
    assert!(after.read(1, "a", 0..1).await.is_some());
    assert!(!after.directory.path().join("objects/empty").exists());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_cleaned_is_skipped_and_tried_again() {
    let fixture = Fixture::new();
    let kept = fixture.stored(1, &["a"]).await;
    let file = fixture.files().remove(0);
    let [staging, objects] = ["staging", "objects"].map(|name| fixture.directory.path().join(name));
    fs::create_dir_all(staging.join("a-directory")).unwrap();
    fs::write(staging.join("left"), "").unwrap();
    // As a directory of another user, but also for root.
    std::os::unix::fs::symlink("unreadable", objects.join("unreadable")).unwrap();
    let directory = file.with_file_name("00#1");
    fs::create_dir(&directory).unwrap();
    fs::write(file.with_file_name("11#1"), "unfinished upload").unwrap();
    fs::create_dir_all(objects.join("default/deleted/1")).unwrap();
    let deleted = objects.join("default/deleted/1/00");
    fs::write(&deleted, "of a task that was deleted").unwrap();
    // As a new server.
    let store = ArtifactStore::new(Options::sample(fixture.directory.path()));
    let after = Fixture { store, ..fixture };
    after.set(Some((Timestamp::ZERO, Some(kept))));
    let found = after.store.find_leftovers().await;
    let mut skipped: Vec<_> = found.skipped.into_iter().map(|skipped| PathBuf::from(skipped.place)).collect();
    skipped.sort();
    assert_eq!(skipped, [directory.clone(), objects.join("unreadable"), staging.join("a-directory")]);
    assert!(!staging.join("left").exists() && !file.with_file_name("11#1").exists());
    let stop = CancellationToken::new();
    let cleaner = tokio::spawn(after.cleaner().run(stop.clone()));
    let gone = async |path: &Path| {
        let wait = async || {
            while path.exists() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(15), wait()).await.expect("it is removed");
    };
    gone(&deleted).await;
    fs::remove_dir(&directory).unwrap();
    fs::write(&directory, "unfinished upload").unwrap();
    gone(&directory).await;
    assert!(after.read(1, "a", 0..1).await.is_some());
    stop.cancel();
    cleaner.await.unwrap();
}
