//! Files that tasks leave: kept, listed, read, linked to, and removed.

use std::path::Path;

use lineshaft::proto::v1::{self, TaskState, artifact_service_client::ArtifactServiceClient};
use ring::digest::{SHA256, digest};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::disk::small_disk;
use crate::http1_client::{Connection, Response};
use crate::support::{BINARY, Server, check, eventually, fields, isolated, reason, run, seconds, task};

/// A handler whose payload is a script.
const SCRIPT: &str = r#"
[[handler]]
name = "sh"
runner = "process"
argv = ["/bin/sh", "-c", "cd $LINESHAFT_ARTIFACTS && exec sh -"]
artifacts = true
retry = { attempts = 2, delay = "0s" }
"#;

fn sh(id: &str, script: &str) -> v1::SubmitTaskRequest {
    let kind = v1::payload::Kind::Data(script.to_owned().into());
    let payload = v1::Payload { kind: Some(kind), content_type: String::new() };
    v1::SubmitTaskRequest { task_id: id.to_owned(), payload: Some(payload), ..task("sh", "") }
}

fn artifacts(server: &Server) -> ArtifactServiceClient<Channel> {
    ArtifactServiceClient::new(server.channel())
}

async fn list(server: &Server, task: &str) -> v1::ListArtifactsResponse {
    let request = v1::ListArtifactsRequest { task_id: task.to_owned(), link_lifetime: None };
    artifacts(server).list_artifacts(request).await.unwrap().into_inner()
}

async fn read(server: &Server, task: &str, name: &str, offset: i64, length: i64) -> Result<Vec<u8>, Status> {
    let request = v1::ReadArtifactRequest { task_id: task.to_owned(), name: name.to_owned(), offset, length };
    let mut messages = artifacts(server).read_artifact(request).await?.into_inner();
    let (mut data, mut next) = (Vec::new(), offset);
    while let Some(message) = messages.message().await? {
        assert_eq!(message.offset, next);
        next += i64::try_from(message.data.len()).unwrap();
        data.extend_from_slice(&message.data);
    }
    Ok(data)
}

fn get(server: &Server, path: &str, headers: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    Connection::open(server).send(request.as_bytes())
}

/// Files below the directory of the objects.
fn objects(server: &Server) -> usize {
    fn count(directory: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
        entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    }
    count(&server.path("data/artifacts/objects"))
}

async fn wait_for_objects(server: &Server, expected: usize) {
    eventually(async || check(objects(server) == expected, || format!("{} objects", objects(server)))).await;
}

#[tokio::test]
async fn artifacts_are_listed_read_in_parts_and_survive_a_crash() {
    let mut server = Server::start(SCRIPT);
    let script = "seq 1 200000 >numbers.csv; printf x >'naïve 一.bin'; : >empty.txt";
    server.submit(sh("t", script)).await;
    let done = server.wait_finished("t").await;
    let content: Vec<u8> = (1..=200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let names: Vec<_> = done.artifacts.iter().map(|file| (&*file.name, &*file.content_type, file.size_bytes)).collect();
    let expected = [
        ("empty.txt", "text/plain", 0),
        ("naïve 一.bin", "application/octet-stream", 1),
        ("numbers.csv", "text/csv", i64::try_from(content.len()).unwrap()),
    ];
    assert_eq!(names, expected);
    let sha256 = digest(&SHA256, &content);
    let hex: Vec<_> = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(done.artifacts[2].sha256, hex.concat());
    server.kill9();
    server.start_again();
    assert_eq!(server.get("t").await.artifacts, done.artifacts);
    let listed = list(&server, "t").await;
    let without_links = listed.artifacts.iter().map(|file| v1::Artifact { link: String::new(), ..file.clone() });
    assert_eq!(without_links.collect::<Vec<_>>(), done.artifacts);
    assert_eq!(listed.expires_at.unwrap().seconds - done.finished_at.unwrap().seconds, 7 * 24 * 3600);
    assert_eq!(read(&server, "t", "numbers.csv", 0, 0).await.unwrap(), content);
    assert_eq!(read(&server, "t", "numbers.csv", 600_000, 500_000).await.unwrap(), content[600_000..1_100_000]);
    assert_eq!(read(&server, "t", "empty.txt", 0, 0).await.unwrap(), b"");
    let end = i64::try_from(content.len()).unwrap();
    assert_eq!(read(&server, "t", "numbers.csv", end, 0).await.unwrap(), b"");
    let refused = read(&server, "t", "numbers.csv", end + 1, 0).await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["offset".to_owned()]));
    for (task, name, code, expected) in [
        ("t", "other", Code::NotFound, "ARTIFACT_NOT_FOUND"),
        ("t", "../t", Code::InvalidArgument, "INVALID_FIELD"),
        ("nosuch", "numbers.csv", Code::NotFound, "TASK_NOT_FOUND"),
    ] {
        let refused = read(&server, task, name, 0, 0).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (code, expected), "{refused:?}");
    }
    assert_eq!(objects(&server), 3);
}

#[tokio::test]
async fn only_the_attempt_that_completes_leaves_artifacts() {
    let server = Server::start(SCRIPT);
    let script = "echo $LINESHAFT_ATTEMPT >attempt; if [ $LINESHAFT_ATTEMPT = 1 ]; then echo half >half; exit 1; fi";
    server.submit(sh("retried", script)).await;
    let done = server.wait_finished("retried").await;
    assert_eq!(done.artifacts.iter().map(|file| &*file.name).collect::<Vec<_>>(), ["attempt"]);
    assert_eq!(read(&server, "retried", "attempt", 0, 0).await.unwrap(), b"2\n");
    server.submit(sh("failed", "echo x >x; exit 1")).await;
    let failed = server.wait_finished("failed").await;
    assert_eq!((failed.state(), failed.artifacts.len()), (TaskState::Failed, 0));
    assert!(list(&server, "failed").await.artifacts.is_empty());
    assert_eq!(objects(&server), 1);
}

#[tokio::test]
async fn limits_fail_the_attempt_and_are_named() {
    let server = Server::start(&format!("{SCRIPT}[artifacts]\ncount = 2\nfile_bytes = 10\ntask_bytes = 15\n"));
    for (id, script, expected) in [
        ("count", "touch 1 2 3", "more than 2 artifacts, which is the limit (`artifacts.count`)"),
        ("file", "seq 1 9 >f", "artifact \"f\" has more than 10 bytes, which is the limit (`artifacts.file_bytes`)"),
        ("task", "seq 1 5 >a; seq 1 5 >b", "the artifacts have more than 15 bytes together"),
        ("name", "touch \"$(printf 'a\\nb')\"", "name of the artifact \"a\\nb\" contains the character '\\n'"),
        ("directory", "mkdir d", "artifact \"d\" is not a regular file"),
    ] {
        server.submit(sh(id, script)).await;
        let failure = server.wait_finished(id).await.failure.unwrap();
        assert!(failure.message.contains(expected), "{id}: {failure:?}");
    }
    assert_eq!(objects(&server), 0);
}

/// An object is counted after its removal.
async fn wait_for_metrics(server: &Server, lines: &[&str]) {
    let has_lines = async || {
        let page = String::from_utf8(get(server, "/metrics", "").body).unwrap();
        check(lines.iter().all(|line| page.contains(line)), || format!("{lines:?}: {page}"))
    };
    eventually(has_lines).await;
}

#[tokio::test]
async fn artifacts_are_removed_with_their_task() {
    let server = Server::start(SCRIPT);
    for id in ["kept", "deleted"] {
        server.submit(sh(id, "echo x >x; echo y >y")).await;
        server.wait_finished(id).await;
    }
    let filter = v1::TaskFilter { task_ids: vec!["deleted".to_owned()], ..v1::TaskFilter::default() };
    server.tasks().delete_tasks(v1::DeleteTasksRequest { filter: Some(filter), ..Default::default() }).await.unwrap();
    wait_for_objects(&server, 2).await;
    assert_eq!(read(&server, "kept", "x", 0, 0).await.unwrap(), b"x\n");
    let removed = "lineshaft_artifact_removed_total{reason=\"task_deleted\"} 2";
    wait_for_metrics(&server, &["lineshaft_artifact_stored_total 4", removed]).await;
}

#[tokio::test]
async fn artifacts_are_removed_at_their_age() {
    let server = Server::start(&format!("{SCRIPT}[artifacts]\nage = \"1s\"\n"));
    server.submit(sh("t", "echo x >x; echo y >y")).await;
    server.wait_finished("t").await;
    wait_for_objects(&server, 0).await;
    assert_eq!(server.get("t").await.state(), TaskState::Completed, "the task itself is kept");
    assert!(list(&server, "t").await.artifacts.is_empty());
    let refused = read(&server, "t", "x", 0, 0).await.unwrap_err();
    assert_eq!(reason(&refused), "ARTIFACT_NOT_FOUND");
    wait_for_metrics(&server, &["lineshaft_artifact_removed_total{reason=\"age\"} 2"]).await;
    let health = server.system().get_system_health(v1::GetSystemHealthRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().cleaned_files, 2);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_once_its_task_has_ended() {
    let mut server = Server::start(SCRIPT);
    server.submit(sh("t", "echo x >x; [ -e ../../go ] || sleep 1000")).await;
    server.wait_started("t").await;
    // As if the server had been killed while it stored the files of the attempt.
    server.kill9();
    let left = server.path("data/artifacts/objects/default/t/99999999999");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("00"), "half").unwrap();
    std::fs::write(left.join("01#1"), "half").unwrap();
    std::fs::write(server.path("data/go"), "").unwrap();
    server.start_again();
    let done = server.wait_finished("t").await;
    assert_eq!(done.artifacts.len(), 1, "{done:?}");
    wait_for_objects(&server, 1).await;
    assert_eq!(read(&server, "t", "x", 0, 0).await.unwrap(), b"x\n");
}

#[tokio::test]
async fn downloads_have_ranges_and_headers_that_a_name_cannot_leave() {
    let server = Server::start(SCRIPT);
    server.submit(sh("t", "printf 0123456789 >'a\"; x=\"ü.html'")).await;
    let done = server.wait_finished("t").await;
    let path = "/artifacts/t/a%22%3B%20x%3D%22%C3%BC.html";
    let whole = get(&server, path, "");
    assert_eq!((whole.status, &*whole.body), (200, &b"0123456789"[..]));
    let etag = format!("\"{}\"", done.artifacts[0].sha256);
    for (name, expected) in [
        ("content-type", "text/html"),
        ("content-length", "10"),
        ("etag", &etag),
        ("x-content-type-options", "nosniff"),
        (
            "content-disposition",
            "attachment; filename=\"a_; x=__.html\"; filename*=UTF-8''a%22%3B%20x%3D%22%C3%BC.html",
        ),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(whole.header(name), expected, "{name}");
    }
    let part = get(&server, path, "range: bytes=3-5\r\n");
    assert_eq!((part.status, &*part.body, part.header("content-range")), (206, &b"345"[..], "bytes 3-5/10"));
    let resumed = get(&server, path, &format!("range: bytes=7-\r\nif-range: {etag}\r\n"));
    assert_eq!((resumed.status, &*resumed.body), (206, &b"789"[..]));
    let other = get(&server, path, "range: bytes=7-\r\nif-range: \"other\"\r\n");
    assert_eq!((other.status, other.body.len()), (200, 10));
    let beyond = get(&server, path, "range: bytes=10-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */10"));
    assert_eq!(get(&server, path, &format!("if-none-match: {etag}\r\n")).status, 304);
    for (path, status) in [
        ("/artifacts/t/other", 404),
        ("/artifacts/nosuch/x", 404),
        ("/artifacts/t/..%2Fx", 400),
        ("/artifacts/t/a%0D%0Ab", 400),
        ("/artifacts/t", 404),
        ("/artifacts/t/%FF", 404),
    ] {
        assert_eq!(get(&server, path, "").status, status, "{path}");
    }
}

#[tokio::test]
async fn an_artifact_whose_object_is_gone_is_not_found() {
    let server = Server::start(SCRIPT);
    server.submit(sh("t", "echo x >x")).await;
    server.wait_finished("t").await;
    let link = list(&server, "t").await.artifacts[0].link.clone();
    assert_eq!((get(&server, "/artifacts/t/x", "").status, get(&server, &link, "").status), (200, 200));
    std::fs::remove_dir_all(server.path("data/artifacts/objects/default")).unwrap();
    assert_eq!((get(&server, "/artifacts/t/x", "").status, get(&server, &link, "").status), (404, 404));
    let refused = read(&server, "t", "x", 0, 0).await.unwrap_err();
    assert_eq!(reason(&refused), "ARTIFACT_NOT_FOUND");
    assert!(refused.message().contains("its file is missing"), "{refused}");
}

/// Restores as documented in docs/operations.md.
#[tokio::test]
async fn a_backup_names_the_artifacts_that_it_lacks_and_they_are_restored_from_their_copy() {
    let mut server = Server::start(SCRIPT);
    let (data, copy) = (server.path("data"), server.path("copy"));
    let backup = ["store", "backup", "--data-dir", data.to_str().unwrap(), "--to"];
    let (ok, output) = run(BINARY, [&backup[..], &[server.path("empty").to_str().unwrap()]].concat());
    assert!(ok && !output.contains("warning"), "{output}");
    server.submit(sh("t", "echo x >x")).await;
    server.wait_finished("t").await;
    let (ok, output) = run(BINARY, [&backup[..], &[copy.to_str().unwrap()]].concat());
    let warning = format!("the backup does not contain {}", data.join("artifacts").display());
    assert!(ok && output.contains(&warning), "{output}");
    let (ok, output) = run("cp", ["-a", data.join("artifacts").to_str().unwrap(), copy.to_str().unwrap()]);
    assert!(ok, "{output}");
    server.kill9();
    std::fs::rename(&data, server.path("lost")).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    server.start_again();
    assert_eq!(read(&server, "t", "x", 0, 0).await.unwrap(), b"x\n");
}

#[tokio::test]
async fn a_full_disk_fails_the_attempt_and_leaves_nothing() {
    if !isolated("artifacts::a_full_disk_fails_the_attempt_and_leaves_nothing", &["mount"]) {
        return;
    }
    let server = Server::start_in(small_disk(96), SCRIPT);
    // The file of the program fits, and its copy does not.
    server.submit(sh("large", "head -c 45000000 /dev/zero >large")).await;
    let failure = server.wait_finished("large").await.failure.unwrap();
    assert!(failure.message.contains("No space left on device"), "{failure:?}");
    wait_for_objects(&server, 0).await;
    server.submit(sh("small", "echo x >x")).await;
    assert_eq!(server.wait_finished("small").await.artifacts.len(), 1);
}

#[tokio::test]
async fn a_link_needs_no_token_until_it_expires_and_leads_to_its_artifact_only() {
    let mut server = Server::start(SCRIPT);
    for id in ["t", "u"] {
        server.submit(sh(id, "printf 0123 >'a b'; printf 4567 >c")).await;
        server.wait_finished(id).await;
    }
    let link = |server: &Server, lifetime: i64| {
        let mut client = artifacts(server);
        async move {
            let request = v1::ListArtifactsRequest { task_id: "t".to_owned(), link_lifetime: seconds(lifetime) };
            client.list_artifacts(request).await.unwrap().into_inner().artifacts[0].link.clone()
        }
    };
    let valid = link(&server, 3600).await;
    server.kill9();
    server.start_again();
    let response = get(&server, &valid, "range: bytes=1-2\r\n");
    assert_eq!((response.status, &*response.body), (206, &b"12"[..]), "also after a restart: {valid}");
    assert_eq!(response.header("referrer-policy"), "no-referrer");
    for (what, changed) in [
        ("task", valid.replace("/t/", "/u/")),
        ("name", valid.replace("a%20b", "c")),
        ("signature", valid.replace("signature=", "signature=A")),
        ("time", valid.replace("expires=1", "expires=2")),
    ] {
        assert!(changed != valid, "{what}");
        assert_eq!(get(&server, &changed, "").status, 403, "another {what}");
    }
    let without = valid.split_once("&signature").unwrap().0;
    assert_eq!(get(&server, without, "").status, 400);
    let short = link(&server, 1).await;
    let expired = eventually(async || {
        let response = get(&server, &short, "");
        check(response.status != 200, || "the link is still valid".to_owned()).map(|()| response)
    });
    let expired = expired.await;
    assert!(expired.status == 403 && String::from_utf8_lossy(&expired.body).contains("has expired"), "{expired:?}");
    let request = v1::ListArtifactsRequest { task_id: "t".to_owned(), link_lifetime: seconds(0) };
    let refused = artifacts(&server).list_artifacts(request).await.unwrap_err();
    assert_eq!(fields(&refused), ["link_lifetime"]);
}
