//! Full and read-only disks: errors are clear, the server recovers, and nothing acknowledged is lost.

use std::path::{Path, PathBuf};

use lineshaft::proto::v1::{self, TaskState, payload::Kind};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Server, bytes, check, eventually, isolated, noop, reason, run};

/// A pool that runs nothing, so that only submissions write.
const PAUSED: &str = "[[pool]]\nname = \"default\"\npaused = true\n";
pub const PAYLOAD_BYTES: usize = 256 << 10;

/// A directory whose subdirectory `data` is a file system of its own.
pub fn small_disk(megabytes: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    mount_small(&directory.path().join("data"), megabytes);
    directory
}

fn mount_small(directory: &Path, megabytes: usize) {
    std::fs::create_dir_all(directory).unwrap();
    let size = format!("size={megabytes}m");
    let (mounted, output) = run("mount", ["-t", "tmpfs", "-o", &size, "none", directory.to_str().unwrap()]);
    assert!(mounted, "{output}");
}

/// Writes a file that takes up space.
fn ballast(directory: &Path, bytes: usize) -> PathBuf {
    let path = directory.join("ballast");
    std::fs::write(&path, vec![1; bytes]).unwrap();
    path
}

/// A disk that is mostly full. Once the ballast is removed, it has space for the journal's log, its file, and the
/// projection's log and file.
fn disk_with_ballast() -> (TempDir, PathBuf) {
    let directory = small_disk(128);
    let path = ballast(&directory.path().join("data"), 104 << 20);
    (directory, path)
}

pub fn large(n: usize) -> v1::SubmitTaskRequest {
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

/// Puts the projection on a file system of its own that is half full.
fn small_disk_for_projection() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (data, small) = (directory.path().join("data"), directory.path().join("small"));
    std::fs::create_dir(&data).unwrap();
    mount_small(&small, 4);
    let ballast = ballast(&small, 2 << 20);
    std::os::unix::fs::symlink(small.join("projection.db"), data.join("projection.db")).unwrap();
    (directory, ballast)
}

/// Submits large tasks until `ListTasks` fails.
async fn fill_projection(server: &Server, handler: &str) -> (Vec<String>, Status) {
    let mut accepted = Vec::new();
    let refused = eventually(async || {
        let request = v1::SubmitTaskRequest { handler: handler.to_owned(), ..large(accepted.len()) };
        accepted.push(server.submit(request).await);
        let list = v1::ListTasksRequest { page_size: 1, ..Default::default() };
        server.tasks().list_tasks(list).await.err().ok_or("the disk is not full".to_owned())
    })
    .await;
    (accepted, refused)
}

async fn health(server: &Server, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(server.channel()).check(request).await.unwrap().into_inner().status()
}

pub async fn wait_until_ready(server: &Server) {
    let poll = async || check(health(server, "readiness").await == ServingStatus::Serving, || server.log());
    eventually(poll).await;
}

pub async fn assert_stored(server: &Server, accepted: &[String]) {
    for (n, id) in accepted.iter().enumerate() {
        let task = server.get(id).await;
        let Some(Kind::Data(data)) = task.payload.unwrap().kind else { panic!("{id} has no payload") };
        assert!(data.len() == PAYLOAD_BYTES && data[0] == u8::try_from(n % 251).unwrap(), "{id} has another payload");
    }
}

#[tokio::test]
async fn a_full_disk_fails_submissions_until_there_is_space() {
    if !isolated("disk::a_full_disk_fails_submissions_until_there_is_space", &["mount"]) {
        return;
    }
    let (directory, ballast) = disk_with_ballast();
    let mut server = Server::start_in(directory, PAUSED);
    let (accepted, refused) = fill(&server).await;
    assert!(accepted.len() > 10, "{} accepted", accepted.len());
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()), "{refused:?}");
    assert!(refused.message().contains("no space left"), "{refused:?}");
    assert_eq!(health(&server, "readiness").await, ServingStatus::NotServing);
    assert_eq!(health(&server, "").await, ServingStatus::NotServing);
    assert_eq!(health(&server, "liveness").await, ServingStatus::Serving, "a restart would not help");
    let again = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!(reason(&again), "STORE_UNAVAILABLE", "small submissions fail as well");

    let update = v1::UpdatePoolRequest { name: "default".to_owned(), size: Some(3), ..Default::default() };
    let refused = server.pools().update_pool(update).await.unwrap_err();
    assert_eq!(reason(&refused), "STORE_UNAVAILABLE", "the change cannot be stored: {refused:?}");

    std::fs::remove_file(ballast).unwrap();
    wait_until_ready(&server).await;
    let after = server.submit(noop()).await;
    assert_stored(&server, &accepted).await;
    server.kill9();
    server.start_again();
    assert_stored(&server, &accepted).await;
    server.get(&after).await;
}

#[tokio::test]
async fn accepted_tasks_survive_a_crash_on_a_full_disk() {
    if !isolated("disk::accepted_tasks_survive_a_crash_on_a_full_disk", &["mount"]) {
        return;
    }
    let (directory, ballast) = disk_with_ballast();
    let mut server = Server::start_in(directory, PAUSED);
    let (accepted, _) = fill(&server).await;
    server.kill9();
    std::fs::remove_file(ballast).unwrap();
    server.start_again();
    assert_stored(&server, &accepted).await;
}

#[tokio::test]
async fn lists_fail_and_tasks_can_be_read_while_the_disk_of_the_projection_is_full() {
    let name = "disk::lists_fail_and_tasks_can_be_read_while_the_disk_of_the_projection_is_full";
    if !isolated(name, &["mount"]) {
        return;
    }
    let (directory, ballast) = small_disk_for_projection();
    let mut server = Server::start_in(directory, PAUSED);
    let (accepted, refused) = fill_projection(&server, "compute").await;
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()), "{refused:?}");
    assert!(refused.message().contains("projection.db"), "{refused:?}");
    assert_eq!(health(&server, "readiness").await, ServingStatus::NotServing);
    assert_stored(&server, &accepted).await;
    std::fs::remove_file(ballast).unwrap();
    wait_until_ready(&server).await;
    assert_stored(&server, &accepted).await;
    server.kill9();
    server.start_again();
    assert_stored(&server, &accepted).await;
}

#[tokio::test]
async fn attempts_have_their_payloads_while_the_disk_of_the_projection_is_full() {
    let name = "disk::attempts_have_their_payloads_while_the_disk_of_the_projection_is_full";
    if !isolated(name, &["mount"]) {
        return;
    }
    let (directory, ballast) = small_disk_for_projection();
    // No payload is kept in memory.
    let handler = "[[handler]]\nname = \"size\"\nrunner = \"process\"\nargv = [\"/usr/bin/wc\", \"-c\"]\n";
    let config = format!("[limits]\nqueued_payload_bytes = 0\n{PAUSED}size = 4\n{handler}");
    let server = Server::start_in(directory, &config);
    let (accepted, _) = fill_projection(&server, "size").await;
    server.set_paused("default", false).await;
    for id in &accepted {
        let task = server.wait_finished(id).await;
        assert_eq!((task.state(), bytes(task.result.as_ref())), (TaskState::Completed, format!("{PAYLOAD_BYTES}\n")));
    }
    let list = v1::ListTasksRequest { page_size: 1, ..Default::default() };
    assert!(server.tasks().list_tasks(list).await.is_err(), "the disk is still full");
    std::fs::remove_file(ballast).unwrap();
    wait_until_ready(&server).await;
    assert_stored(&server, &accepted).await;
}

#[tokio::test]
async fn a_full_disk_at_the_start_is_reported() {
    if !isolated("disk::a_full_disk_at_the_start_is_reported", &["mount"]) {
        return;
    }
    let mut server = Server::start("");
    server.signal(rustix::process::Signal::TERM);
    server.wait_exit();
    let data = server.path("data");
    std::fs::remove_dir_all(&data).unwrap();
    mount_small(&data, 1);
    let ballast = ballast(&data, 1 << 20);
    let output = server.fail_to_start_again();
    assert!(output.contains("no space left") && output.contains("data/") && output.contains("free some"), "{output}");
    std::fs::remove_file(ballast).unwrap();
    // There is some space now, but too little to preallocate the journal's log.
    server.start_again();
    server.submit(noop()).await;
}

#[tokio::test]
async fn a_read_only_directory_is_reported() {
    if !isolated("disk::a_read_only_directory_is_reported", &["mount"]) {
        return;
    }
    let mut server = Server::start_in(small_disk(48), PAUSED);
    let id = server.submit(large(0)).await;
    server.kill9();
    let data = server.path("data");
    let remount = |option: &str| {
        let (done, output) = run("mount", ["-o", &format!("remount,{option}"), data.to_str().unwrap()]);
        assert!(done, "{output}");
    };
    remount("ro");
    let output = server.fail_to_start_again();
    assert!(output.contains("data/") && output.contains("write access"), "{output}");
    remount("rw");
    server.start_again();
    assert_stored(&server, &[id]).await;
}

#[test]
fn a_start_on_a_full_disk_names_the_cause() {
    if !isolated("disk::a_start_on_a_full_disk_names_the_cause", &["mount"]) {
        return;
    }
    // At each size the start fails at another file; the smallest has no space at all.
    for kilobytes in [0, 4, 16, 64, 128] {
        let directory = small_disk(1);
        let filled = directory.path().join("data/ballast");
        std::fs::write(&filled, vec![1; (1 << 20) - (kilobytes << 10)]).unwrap();
        let log = Server::fail_to_start_in(directory, &[], "", &[]);
        assert!(log.contains("no space left on the disk") && !log.contains("resumes by itself"), "{kilobytes}: {log}");
    }
}
