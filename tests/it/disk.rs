//! Disks that are full or may not be written: said clearly, survived, and nothing acknowledged is lost.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lineshaft::proto::v1::{self, TaskState, payload::Kind};
use tempfile::TempDir;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{PATIENCE, Server, bytes, isolated, noop, reason, run};

/// A pool that runs nothing, so that only submissions write.
const PAUSED: &str = "[[pool]]\nname = \"default\"\npaused = true\n";
const PAYLOAD_BYTES: usize = 256 << 10;

/// A directory whose part `data` is a disk of its own.
fn small_disk(megabytes: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    mount_small(&directory.path().join("data"), megabytes);
    directory
}

fn mount_small(place: &Path, megabytes: usize) {
    std::fs::create_dir_all(place).unwrap();
    let size = format!("size={megabytes}m");
    let (mounted, said) = run("mount", ["-t", "tmpfs", "-o", &size, "none", place.to_str().unwrap()]);
    assert!(mounted, "{said}");
}

/// Takes up space until it is removed.
fn ballast(place: &Path, bytes: usize) -> PathBuf {
    let path = place.join("ballast");
    std::fs::write(&path, vec![1; bytes]).unwrap();
    path
}

/// Most of the disk is taken: what the journal can hold meanwhile goes into its file and into the
/// projection's log and file when there is space.
fn disk_with_ballast() -> (TempDir, PathBuf) {
    let directory = small_disk(128);
    let path = ballast(&directory.path().join("data"), 104 << 20);
    (directory, path)
}

fn large(n: usize) -> v1::SubmitTaskRequest {
    let data = vec![u8::try_from(n % 251).unwrap(); PAYLOAD_BYTES];
    let payload = v1::Payload { kind: Some(Kind::Data(data.into())), content_type: String::new() };
    v1::SubmitTaskRequest { payload: Some(payload), ..noop() }
}

/// Submits large tasks until one is refused.
async fn fill(server: &Server) -> (Vec<String>, Status) {
    let mut accepted = Vec::new();
    for n in 0..1_000 {
        match server.tasks().submit_task(large(n)).await {
            Ok(answer) => accepted.push(answer.into_inner().task_id),
            Err(refused) => return (accepted, refused),
        }
    }
    panic!("the disk is never full");
}

/// The projection has a disk of its own, half of which is taken.
fn small_disk_for_answers() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (data, small) = (directory.path().join("data"), directory.path().join("small"));
    std::fs::create_dir(&data).unwrap();
    mount_small(&small, 4);
    let ballast = ballast(&small, 2 << 20);
    std::os::unix::fs::symlink(small.join("projection.db"), data.join("projection.db")).unwrap();
    (directory, ballast)
}

/// Submits large tasks until one cannot be asked about.
async fn fill_answers(server: &Server, handler: &str) -> (Vec<String>, Status) {
    let mut accepted = Vec::new();
    let until = Instant::now() + PATIENCE;
    loop {
        let request = v1::SubmitTaskRequest { handler: handler.to_owned(), ..large(accepted.len()) };
        accepted.push(server.submit(request).await);
        let request = v1::GetTaskRequest { task_id: accepted[accepted.len() - 1].clone(), include_payload: false };
        if let Err(refused) = server.tasks().get_task(request).await {
            return (accepted, refused);
        }
        assert!(Instant::now() < until, "the disk is never full");
    }
}

async fn health(server: &Server, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(server.channel()).check(request).await.unwrap().into_inner().status()
}

async fn until_ready(server: &Server) {
    let until = Instant::now() + PATIENCE;
    while health(server, "readiness").await != ServingStatus::Serving {
        assert!(Instant::now() < until, "it is never ready again: {}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn assert_there(server: &Server, accepted: &[String]) {
    for (n, id) in accepted.iter().enumerate() {
        let task = server.get(id).await;
        let Some(Kind::Data(data)) = task.payload.unwrap().kind else { panic!("{id} has no bytes") };
        assert!(data.len() == PAYLOAD_BYTES && data[0] == u8::try_from(n % 251).unwrap(), "{id} is not what was sent");
    }
}

#[tokio::test]
async fn a_full_disk_stops_submissions_until_there_is_space_and_loses_nothing() {
    if !isolated("disk::a_full_disk_stops_submissions_until_there_is_space_and_loses_nothing", &["mount"]) {
        return;
    }
    let (directory, ballast) = disk_with_ballast();
    let mut server = Server::start_in(directory, PAUSED);
    let (accepted, refused) = fill(&server).await;
    assert!(accepted.len() > 10, "{} accepted", accepted.len());
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()), "{refused:?}");
    assert!(refused.message().contains("no space is left"), "{refused:?}");
    assert_eq!(health(&server, "readiness").await, ServingStatus::NotServing);
    assert_eq!(health(&server, "").await, ServingStatus::NotServing);
    assert_eq!(health(&server, "liveness").await, ServingStatus::Serving, "a restart would not help");
    let again = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!(reason(&again), "STORE_UNAVAILABLE", "small ones are refused as well");

    let update = v1::UpdatePoolRequest { name: "default".to_owned(), size: Some(3), ..Default::default() };
    let refused = server.pools().update_pool(update).await.unwrap_err();
    assert_eq!(reason(&refused), "STORE_UNAVAILABLE", "it could not be kept: {refused:?}");

    std::fs::remove_file(ballast).unwrap();
    until_ready(&server).await;
    let after = server.submit(noop()).await;
    assert_there(&server, &accepted).await;
    server.kill9();
    server.start_again();
    assert_there(&server, &accepted).await;
    server.get(&after).await;
}

#[tokio::test]
async fn what_was_accepted_before_a_crash_on_a_full_disk_is_there_when_there_is_space() {
    if !isolated("disk::what_was_accepted_before_a_crash_on_a_full_disk_is_there_when_there_is_space", &["mount"]) {
        return;
    }
    let (directory, ballast) = disk_with_ballast();
    let mut server = Server::start_in(directory, PAUSED);
    let (accepted, _) = fill(&server).await;
    server.kill9();
    std::fs::remove_file(ballast).unwrap();
    server.start_again();
    assert_there(&server, &accepted).await;
}

#[tokio::test]
async fn answers_that_the_full_disk_of_the_projection_holds_up_are_refused_and_not_awaited_for_ever() {
    let name = "disk::answers_that_the_full_disk_of_the_projection_holds_up_are_refused_and_not_awaited_for_ever";
    if !isolated(name, &["mount"]) {
        return;
    }
    let (directory, ballast) = small_disk_for_answers();
    let mut server = Server::start_in(directory, PAUSED);
    let (accepted, refused) = fill_answers(&server, "compute").await;
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()), "{refused:?}");
    assert!(refused.message().contains("projection.db"), "{refused:?}");
    assert_eq!(health(&server, "readiness").await, ServingStatus::NotServing);
    std::fs::remove_file(ballast).unwrap();
    until_ready(&server).await;
    assert_there(&server, &accepted).await;
    server.kill9();
    server.start_again();
    assert_there(&server, &accepted).await;
}

#[tokio::test]
async fn attempts_wait_for_payloads_that_a_full_disk_keeps_from_them_and_can_be_cancelled_meanwhile() {
    let name = "disk::attempts_wait_for_payloads_that_a_full_disk_keeps_from_them_and_can_be_cancelled_meanwhile";
    if !isolated(name, &["mount"]) {
        return;
    }
    let (directory, ballast) = small_disk_for_answers();
    // No payload is kept in memory.
    let handler = "[[handler]]\nname = \"size\"\nrunner = \"process\"\nargv = [\"/usr/bin/wc\", \"-c\"]\n";
    let config = format!("[limits]\nqueued_payload_bytes = 0\n{PAUSED}size = 4\n{handler}");
    let server = Server::start_in(directory, &config);
    let (mut accepted, _) = fill_answers(&server, "size").await;
    let request = v1::WatchTasksRequest { after_revision: Some(0), ..Default::default() };
    let mut steps = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    server.pause("default", false).await;
    // The tables lack the last one only: its payload is in the journal.
    let cancelled = accepted.pop().unwrap();
    until_it(&mut steps, &cancelled, TaskState::Running).await;
    let request = v1::CancelTaskRequest { task_id: cancelled.clone(), ..Default::default() };
    server.tasks().cancel_task(request).await.unwrap();
    until_it(&mut steps, &cancelled, TaskState::Cancelled).await;
    let last = server.submit(v1::SubmitTaskRequest { handler: "size".to_owned(), ..large(7) }).await;
    until_it(&mut steps, &last, TaskState::Running).await;
    std::fs::remove_file(ballast).unwrap();
    until_it(&mut steps, &last, TaskState::Completed).await;
    for id in accepted.iter().chain([&last]) {
        let task = server.ended(id).await;
        assert_eq!((task.state(), bytes(task.result.as_ref())), (TaskState::Completed, format!("{PAYLOAD_BYTES}\n")));
    }
}

/// Waits until the task has come to the state.
async fn until_it(steps: &mut Streaming<v1::WatchTasksResponse>, id: &str, state: TaskState) {
    let comes = async {
        loop {
            let step = steps.message().await.unwrap().unwrap();
            if let Some(v1::watch_tasks_response::Kind::Event(event)) = step.kind
                && event.task_id == id
                && event.state() == state
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, comes).await.unwrap_or_else(|_| panic!("{id} is never {state:?}"));
}

#[tokio::test]
async fn a_full_disk_at_the_start_is_named_with_the_remedy() {
    if !isolated("disk::a_full_disk_at_the_start_is_named_with_the_remedy", &["mount"]) {
        return;
    }
    let mut server = Server::start("");
    server.signal(rustix::process::Signal::TERM);
    server.wait_exit();
    let data = server.path("data");
    std::fs::remove_dir_all(&data).unwrap();
    mount_small(&data, 1);
    let all = ballast(&data, 1 << 20);
    let said = server.fail_to_start_again();
    assert!(said.contains("no space is left for") && said.contains("data/") && said.contains("free some"), "{said}");
    std::fs::remove_file(all).unwrap();
    // Now there is a little space, and less than the log would like to have.
    server.start_again();
    server.submit(noop()).await;
}

#[tokio::test]
async fn a_directory_that_may_only_be_read_is_named_with_the_remedy() {
    if !isolated("disk::a_directory_that_may_only_be_read_is_named_with_the_remedy", &["mount"]) {
        return;
    }
    let mut server = Server::start_in(small_disk(48), PAUSED);
    let id = server.submit(large(0)).await;
    server.kill9();
    let data = server.path("data");
    let remount = |how: &str| {
        let (done, said) = run("mount", ["-o", &format!("remount,{how}"), data.to_str().unwrap()]);
        assert!(done, "{said}");
    };
    remount("ro");
    let said = server.fail_to_start_again();
    assert!(said.contains("data/") && said.contains("write access"), "{said}");
    remount("rw");
    server.start_again();
    assert_there(&server, &[id]).await;
}
