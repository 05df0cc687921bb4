//! WatchTasks: watches have no gaps and can be resumed.

use futures_util::StreamExt;
use lineshaft::proto::v1::{self, TaskState, watch_tasks_response::Kind};
use tonic::Streaming;
use tonic_types::StatusExt;

use crate::support::{Server, TIMEOUT, fields, noop, reason, task};

async fn watch(server: &Server, request: v1::WatchTasksRequest) -> Streaming<v1::WatchTasksResponse> {
    server.tasks().watch_tasks(request).await.unwrap().into_inner()
}

fn after(resume_token: impl Into<String>) -> v1::WatchTasksRequest {
    v1::WatchTasksRequest { resume_token: resume_token.into(), ..Default::default() }
}

/// A watch of every event.
async fn watch_all(server: &Server) -> Streaming<v1::WatchTasksResponse> {
    watch(server, after(server.oldest_token().await)).await
}

/// Events up to and including a revision.
async fn events(steps: &mut Streaming<v1::WatchTasksResponse>, last: u64) -> Vec<v1::TaskEvent> {
    let mut seen = Vec::new();
    let read = async {
        while seen.last().is_none_or(|event: &v1::TaskEvent| event.revision < last) {
            match steps.message().await.unwrap().expect("the watch ended").kind {
                Some(Kind::Event(event)) => seen.push(*event),
                Some(Kind::Progress(_)) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    };
    tokio::time::timeout(TIMEOUT, read).await.expect("all events");
    seen
}

#[tokio::test]
async fn a_watch_resumed_with_any_token_sees_each_later_event_once() {
    let server = Server::start("");
    let tasks = vec![noop(); 20];
    let batch = v1::BatchSubmitTasksRequest { tasks, batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    for id in &ids {
        server.wait_finished(id).await;
    }
    let all = events(&mut watch_all(&server).await, 60).await;
    let revisions: Vec<_> = all.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=60).collect::<Vec<_>>());
    for (index, event) in all[..59].iter().enumerate() {
        let later = events(&mut watch(&server, after(&event.resume_token)).await, 60).await;
        assert_eq!(later, all[index + 1..], "resumed after {}", event.revision);
    }
}

#[tokio::test]
async fn a_watch_after_a_submission_sees_all_its_events_and_no_earlier_ones() {
    let server = Server::start("");
    let mut tasks = server.tasks();
    let named = |name: &str| v1::SubmitTaskRequest { task_id: name.to_owned(), ..noop() };
    let first = tasks.submit_task(named("first")).await.unwrap().into_inner();
    server.wait_finished("first").await;

    let request =
        v1::BatchSubmitTasksRequest { tasks: ["a", "first", "b", "c"].map(named).to_vec(), batch_id: String::new() };
    let batch = tasks.batch_submit_tasks(request).await.unwrap().into_inner();
    for id in &batch.task_ids {
        server.wait_finished(id).await;
    }
    let last = server.get("c").await.revision.max(server.get("a").await.revision).max(server.get("b").await.revision);
    let seen = events(&mut watch(&server, after(batch.resume_token)).await, last).await;
    let of = |id: &str| seen.iter().filter(|event| event.task_id == id).map(v1::TaskEvent::state).collect::<Vec<_>>();
    // `first` has ended before it was submitted again: its follower sees the end, too.
    for id in ["first", "a", "b", "c"] {
        assert_eq!(of(id), [TaskState::Queued, TaskState::Running, TaskState::Completed], "{id}");
    }
    assert_eq!(seen[5].revision, batch.revision, "the revision of the last submitted task");
    let seen_last = seen.into_iter().next_back().unwrap();

    let seen = events(&mut watch(&server, after(first.resume_token)).await, first.revision).await;
    assert_eq!((seen.len(), &*seen[0].task_id, seen[0].previous_state()), (1, "first", TaskState::Unspecified));
    let again = tasks.submit_task(named("first")).await.unwrap().into_inner();
    assert_eq!((again.duplicate, again.state()), (true, TaskState::Completed));
    assert_eq!((&again.resume_token, again.revision), (&seen_last.resume_token, last), "no event was added");
}

#[tokio::test]
async fn a_watch_resumed_after_a_crash_has_no_gap() {
    let mut server = Server::start("");
    for _ in 0..5 {
        let id = server.submit(noop()).await;
        server.wait_finished(&id).await;
    }
    let before = events(&mut watch_all(&server).await, 7).await;
    server.kill9();
    server.start_again();
    let rest = events(&mut watch(&server, after(&before[6].resume_token)).await, 15).await;
    let revisions: Vec<_> = before[..7].iter().chain(&rest).map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=15).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_snapshot_is_followed_by_later_events() {
    let server = Server::start("");
    let old = server.submit(noop()).await;
    server.wait_finished(&old).await;
    let request = v1::WatchTasksRequest { include_snapshot: true, ..Default::default() };
    let mut steps = watch(&server, request).await;
    let Some(Kind::SnapshotEntry(entry)) = steps.message().await.unwrap().unwrap().kind else { panic!("no entry") };
    assert_eq!((entry.task_id, entry.state), (old, TaskState::Completed.into()));
    let Some(Kind::SnapshotComplete(done)) = steps.message().await.unwrap().unwrap().kind else { panic!("no end") };
    assert_eq!(done.revision, 3);
    let new = server.submit(noop()).await;
    let later = events(&mut steps, 6).await;
    assert!(later.iter().all(|event| event.task_id == new));
}

#[tokio::test]
async fn a_watch_without_matching_events_reports_progress() {
    let server = Server::start("");
    let failed = v1::TaskFilter { states: vec![TaskState::Failed.into()], ..Default::default() };
    let other = v1::TaskFilter { task_ids: vec!["another".to_owned()], ..Default::default() };
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let start = server.oldest_token().await;
    let mut watches = Vec::new();
    for filter in [failed, other] {
        let resume_token = start.clone();
        let request = v1::WatchTasksRequest {
            filter: Some(filter),
            resume_token,
            progress_interval: interval,
            ..Default::default()
        };
        watches.push(watch(&server, request).await);
    }
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    for mut steps in watches {
        loop {
            match steps.message().await.unwrap().unwrap().kind {
                Some(Kind::Progress(progress)) if progress.revision == 3 => break,
                Some(Kind::Progress(_)) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_watch_with_states_receives_no_deletion_events() {
    let server = Server::start("");
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    server.tasks().delete_tasks(v1::DeleteTasksRequest::default()).await.unwrap();
    let next = server.submit(noop()).await;
    server.wait_finished(&next).await;
    let filter = v1::TaskFilter { states: vec![TaskState::Completed.into()], ..Default::default() };
    let start = server.oldest_token().await;
    let seen = v1::WatchTasksRequest { filter: Some(filter), ..after(start) };
    let seen = events(&mut watch(&server, seen).await, 7).await;
    let seen: Vec<_> = seen.iter().map(|event| (event.revision, event.deleted)).collect();
    assert_eq!(seen, [(3, false), (7, false)]);
    let all = events(&mut watch_all(&server).await, 7).await;
    assert!(all[3].deleted, "{:?}", all[3]);
}

#[tokio::test]
async fn watchers_that_do_not_read_do_not_delay_others() {
    let server = Server::start("");
    let mut watchers = Vec::new();
    for _ in 0..50 {
        watchers.push(watch_all(&server).await);
    }
    for _ in 0..5 {
        let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 1_000], batch_id: String::new() };
        server.tasks().batch_submit_tasks(batch).await.unwrap();
    }
    let mut readers = Vec::new();
    for mut steps in watchers.drain(..40) {
        readers.push(tokio::spawn(async move { events(&mut steps, 15_000).await.len() }));
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 15_000);
    }
    for mut late in watchers {
        assert_eq!(events(&mut late, 15_000).await.len(), 15_000, "late readers miss no event");
    }
}

#[tokio::test]
async fn a_token_of_another_store_or_an_altered_one_is_an_invalid_field() {
    let (server, other) = (Server::start(""), Server::start(""));
    let (own, foreign) = (server.oldest_token().await, other.oldest_token().await);
    for text in [&foreign, "0", "garbage", &own[1..], &format!("{own}A")] {
        let refused = server.tasks().watch_tasks(after(text)).await.unwrap_err();
        assert_eq!((reason(&refused).as_str(), fields(&refused)), ("INVALID_FIELD", vec!["resume_token".to_owned()]));
    }
    let both = v1::WatchTasksRequest { include_snapshot: true, ..after(own) };
    assert_eq!(fields(&server.tasks().watch_tasks(both).await.unwrap_err()), ["resume_token"]);
}

#[tokio::test]
async fn a_token_is_valid_after_a_restart_but_not_on_an_older_copy_of_the_store() {
    let mut server = Server::start("");
    let submitted = server.tasks().submit_task(noop()).await.unwrap().into_inner();
    let done = server.wait_finished(&submitted.task_id).await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success());
    let (data, copy) = (server.path("data"), server.path("copy"));
    std::fs::create_dir(&copy).unwrap();
    let files = std::fs::read_dir(&data).unwrap().map(Result::unwrap);
    for file in files.filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    server.start_again();
    let seen = events(&mut watch(&server, after(submitted.resume_token)).await, done.revision).await;
    let next = server.submit(noop()).await;
    server.wait_finished(&next).await;
    let list = server.tasks().list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner();
    server.kill9();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    server.start_again();
    let refused = server.tasks().watch_tasks(after(list.resume_token)).await.unwrap_err();
    assert_eq!(reason(&refused), "REVISION_IN_FUTURE");
    let known = &seen.last().unwrap().resume_token;
    assert!(server.tasks().watch_tasks(after(known)).await.is_ok(), "the copy has this event");
}

#[tokio::test]
async fn watches_end_immediately_when_the_server_drains() {
    let mut server = Server::start("");
    let mut steps = watch_all(&server).await;
    let info = v1::GetServerInfoRequest {};
    assert_eq!(server.system().get_server_info(info).await.unwrap().into_inner().store, "sqlite");
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
    let end = loop {
        match steps.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("ended without a status"),
        }
    };
    assert_eq!(reason(&end), "DRAINING");
    assert!(server.wait_exit().success());
}

/// Reads a watch until the drain ends it: the revisions of its events, and the token to resume with.
async fn read_until_drained(steps: &mut Streaming<v1::WatchTasksResponse>) -> (Vec<u64>, String) {
    let mut seen = Vec::new();
    let end = loop {
        match tokio::time::timeout(TIMEOUT, steps.next()).await.expect("the drain ends the watch") {
            Some(Ok(v1::WatchTasksResponse { kind: Some(Kind::Event(event)) })) => seen.push(event.revision),
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("ended without a status"),
        }
    };
    assert_eq!((end.code(), reason(&end).as_str()), (tonic::Code::Unavailable, "DRAINING"));
    let details = end.get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    (seen, details.error_info().unwrap().metadata["resume_token"].clone())
}

#[tokio::test]
async fn a_watch_ended_by_a_drain_can_be_resumed_on_the_next_server() {
    let mut server = Server::start("");
    for _ in 0..5 {
        let id = server.submit(noop()).await;
        server.wait_finished(&id).await;
    }
    // Still running while the server drains, so that there are events after the watches have ended.
    let long = server.submit(task("io", "1")).await;
    server.wait_started(&long).await;
    let quiet = v1::TaskFilter { states: vec![TaskState::Failed.into()], ..Default::default() };
    let quiet = v1::WatchTasksRequest { filter: Some(quiet), ..Default::default() };
    let (mut all, mut quiet) = (watch_all(&server).await, watch(&server, quiet).await);
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
    let (seen, resume) = read_until_drained(&mut all).await;
    let (nothing, resume_quiet) = read_until_drained(&mut quiet).await;
    assert!(nothing.is_empty());
    assert!(server.wait_exit().success());
    server.start_again();
    let next = server.submit(noop()).await;
    server.wait_finished(&next).await;
    let last = server.get(&next).await.revision;
    let revisions = |events: Vec<v1::TaskEvent>| events.iter().map(|event| event.revision).collect::<Vec<_>>();
    let later = revisions(events(&mut watch(&server, after(resume)).await, last).await);
    assert!(later.len() > 3, "the end of the long task and all events of the next: {later:?}");
    assert_eq!([seen, later].concat(), (1..=last).collect::<Vec<_>>(), "each event once");
    // A watch without events also gets a token to resume with.
    let later = revisions(events(&mut watch(&server, after(resume_quiet)).await, last).await);
    assert_eq!(later, (later[0]..=last).collect::<Vec<_>>());
    assert!(later[0] >= 18, "five tasks of three events, and the start of the long one, were skipped: {later:?}");
}

#[tokio::test]
async fn a_call_deadline_ends_the_stream_but_not_the_task() {
    let server = Server::start("");
    let id = server.submit(task("io", "0.6")).await;
    let mut request = tonic::Request::new(v1::WatchTasksRequest::default());
    request.set_timeout(std::time::Duration::from_millis(200));
    let mut steps = server.tasks().watch_tasks(request).await.unwrap().into_inner();
    let end = loop {
        match steps.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a status"),
            Err(status) => break status,
        }
    };
    assert!(matches!(end.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{end:?}");
    assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
}
