//! Memory of the server under large payloads, in a control group where the machine allows it.

use std::io::{Read, Write};
use std::net::TcpStream;

use futures_util::{StreamExt, future, stream};
use lineshaft::proto::v1::submit_tasks_response::Outcome;
use lineshaft::proto::v1::{self, TaskState, payload::Kind};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::health_endpoints::{samples, wait_for_sample};
use crate::support::{ControlGroup, Faults, Server, bytes, check, eventually, noop, reason};

/// Less than the payloads of all tasks, and what the documentation names as the least for a server with its defaults.
const LIMIT: u64 = 256 << 20;
const PAYLOAD_BYTES: usize = 1 << 20;
/// More tasks than the limit has room for.
const TASKS: usize = 320;
const CONFIG: &str = "
[[pool]]
name = \"default\"
size = 4
queue_limit = 320
paused = true
[[handler]]
name = \"size\"
runner = \"process\"
argv = [\"/usr/bin/wc\", \"-c\"]
";

fn large(n: usize) -> v1::SubmitTaskRequest {
    let data = vec![u8::try_from(n % 251).unwrap(); PAYLOAD_BYTES];
    let payload = v1::Payload { kind: Some(Kind::Data(data.into())), content_type: String::new() };
    v1::SubmitTaskRequest { handler: "size".to_owned(), payload: Some(payload), ..Default::default() }
}

/// Memory that is counted for requests.
fn used(server: &Server) -> u64 {
    samples(&server.address)["lineshaft_memory_used_bytes{part=\"requests\"}"].parse().unwrap()
}

/// Waits as the server asks for.
async fn back_off(refused: &Status) {
    let delay = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    tokio::time::sleep(delay.expect("the caller learns when to try again")).await;
}

/// Submits large tasks one by one until the queue is full. Returns their IDs, and how often memory was short.
async fn fill_by_calls(server: &Server) -> (Vec<String>, usize) {
    let (mut tasks, mut accepted, mut refusals) = (server.tasks(), Vec::new(), 0);
    loop {
        match tasks.submit_task(large(accepted.len())).await {
            Ok(answer) => accepted.push(answer.into_inner().task_id),
            Err(refused) => match &*reason(&refused) {
                "QUEUE_FULL" => return (accepted, refusals),
                "MEMORY_FULL" => {
                    assert_eq!(refused.code(), Code::ResourceExhausted);
                    refusals += 1;
                    back_off(&refused).await;
                }
                _ => panic!("{refused:?}"),
            },
        }
    }
}

/// Submits large tasks through streams until the queue is full.
async fn fill_by_streams(server: &Server) -> (Vec<String>, usize) {
    let (mut tasks, mut accepted, mut refusals, mut is_full) = (server.tasks(), Vec::new(), 0, false);
    while !is_full {
        let request = |n| v1::SubmitTasksRequest { sequence: n as u64, task: Some(large(n)) };
        let requests = stream::iter((0..64).map(request));
        let mut answers = match tasks.submit_tasks(requests).await {
            Ok(answers) => answers.into_inner(),
            Err(refused) => {
                refusals += 1;
                back_off(&refused).await;
                continue;
            }
        };
        while let Some(answer) = answers.next().await {
            match answer.map(|answer| answer.outcome.unwrap()) {
                Ok(Outcome::Accepted(task)) => accepted.push(task.task_id),
                Ok(Outcome::Rejected(rejection)) if rejection.reason == "QUEUE_FULL" => is_full = true,
                Ok(Outcome::Rejected(rejection)) => {
                    assert_eq!(rejection.reason, "MEMORY_FULL", "{rejection:?}");
                    refusals += 1;
                }
                Err(refused) => {
                    refusals += 1;
                    back_off(&refused).await;
                }
            }
        }
    }
    (accepted, refusals)
}

/// Fills the queue by many calls and streams at once, each on a connection of its own. Returns the IDs, and how often
/// memory was short.
async fn fill(server: &Server) -> (Vec<String>, usize) {
    let calls = future::join_all((0..96).map(|_| fill_by_calls(server)));
    let streams = future::join_all((0..16).map(|_| fill_by_streams(server)));
    let (calls, streams) = future::join(calls, streams).await;
    let refusals: usize = calls.iter().chain(&streams).map(|(_, refusals)| refusals).sum();
    let accepted: Vec<_> = calls.into_iter().chain(streams).flat_map(|(accepted, _)| accepted).collect();
    assert_eq!(accepted.len(), TASKS);
    (accepted, refusals)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_the_defaults_under_large_payloads_and_after_a_crash() {
    let group = ControlGroup::create(LIMIT);
    println!("control group: {:?}", group.as_ref().map(ControlGroup::path));
    let config = if group.is_some() { CONFIG.to_owned() } else { format!("{CONFIG}{SMALL}") };
    let mut server = Server::start_limited(&config, group.as_ref());
    let info = server.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    let limits = info.limits.unwrap();
    assert_eq!((limits.request_memory_bytes, limits.payload_memory_bytes), (32 << 20, (38 << 20) / 4 * 3));
    let (accepted, refusals) = fill(&server).await;
    println!("{} tasks accepted, {refusals} times the memory for requests was full", accepted.len());
    let before = server.peak_memory();
    server.kill9();
    server.start_again();
    let restarted = server.peak_memory();
    println!("peak {} MiB, {} MiB after the restart", before >> 20, restarted >> 20);
    server.set_paused("default", false).await;
    for id in &accepted {
        let task = server.wait_finished(id).await;
        let result = (task.state(), bytes(task.result.as_ref()));
        assert_eq!(result, (TaskState::Completed, format!("{PAYLOAD_BYTES}\n")), "{:?}", task.failure);
    }
    let drained = server.peak_memory();
    println!("{} MiB after all tasks have run", drained >> 20);
    assert_eq!(group.as_ref().map_or(0, ControlGroup::killed), 0, "killed for memory");
    assert!(drained.max(before) <= LIMIT, "{before} and {drained} bytes exceed the limit");
    assert!(drained <= before + before / 5, "{drained} bytes after the restart, {before} before");
}

/// What a server in a control group of [`LIMIT`] has by default.
const SMALL: &str = "
[limits]
queued_payload_bytes = \"38MiB\"
request_bytes = \"32MiB\"
";

#[tokio::test]
async fn small_tasks_that_wait_do_not_fill_the_memory_also_after_a_crash() {
    let group = ControlGroup::create(LIMIT);
    // What a server in the group has by default.
    let limit = if group.is_some() { "" } else { "[[pool]]\nname = \"default\"\nqueue_limit = 55924\n" };
    let mut server = Server::start_limited(limit, group.as_ref());
    let later = v1::SubmitTaskRequest { delay: crate::support::seconds(86_400), ..noop() };
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![later; 10_000], ..Default::default() };
    let mut accepted = 0;
    let refused = loop {
        match server.tasks().batch_submit_tasks(batch.clone()).await {
            Ok(_) => accepted += 10_000,
            Err(refused) => break refused,
        }
    };
    println!("{accepted} tasks, peak {} MiB", server.peak_memory() >> 20);
    assert_eq!((reason(&refused), accepted), ("QUEUE_FULL".to_owned(), 50_000), "{refused:?}");
    assert!(server.peak_memory() <= LIMIT);
    server.kill9();
    server.start_again();
    server.submit(noop()).await;
    println!("peak {} MiB after the restart", server.peak_memory() >> 20);
    assert!(server.peak_memory() <= LIMIT);
    assert_eq!(group.as_ref().map_or(0, ControlGroup::killed), 0, "killed for memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_never_completed_do_not_fill_the_memory() {
    let group = ControlGroup::create(LIMIT);
    let server = Server::start_limited(SMALL, group.as_ref());
    let head = "POST /lineshaft.v1.TaskService/SubmitTask HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 16000000\r\n\r\n";
    let open: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            // Fails once the server has refused the request.
            let _ = (0..5).try_for_each(|_| stream.write_all(&vec![b' '; 1 << 20]));
            stream
        })
        .collect();
    let used = || used(&server);
    eventually(async || check(used() > 16 << 20, || format!("{} bytes are used", used()))).await;
    println!("{} connections, {} MiB of requests, peak {} MiB", open.len(), used() >> 20, server.peak_memory() >> 20);
    assert!(used() <= 32 << 20, "{}", used());
    assert!(server.peak_memory() <= LIMIT);
    drop(open);
    wait_for_sample(&server.address, "lineshaft_memory_used_bytes{part=\"requests\"}", "0");
    let id = server.submit(noop()).await;
    server.wait_finished(&id).await;
    assert_eq!(group.as_ref().map_or(0, ControlGroup::killed), 0, "killed for memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_for_a_hanging_disk_are_bounded_also_if_their_callers_have_gone() {
    let faults = Faults::new();
    let variables = faults.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let server = Server::start_with(&format!("{CONFIG}{SMALL}"), &variables);
    faults.set(&["sync hang journal.db", "sync hang journal.db-wal"]);
    let submit = |n| {
        let mut tasks = server.tasks();
        tokio::spawn(async move { tasks.submit_task(large(n)).await })
    };
    let mut calls: Vec<_> = (0..64).map(submit).collect();
    let used = || used(&server);
    // Those that the server refuses end at once, the others wait for the disk.
    let waiting = eventually(async || {
        let waiting = calls.iter().filter(|call| !call.is_finished()).count();
        check(waiting < 32 && used() > (waiting as u64) << 20, || format!("{waiting} calls wait, {} bytes", used()))?;
        Ok(waiting)
    })
    .await;
    assert!(waiting > 8, "{waiting}");
    for call in calls.extract_if(.., |call| call.is_finished()) {
        let refused = call.await.unwrap().unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::ResourceExhausted, "MEMORY_FULL"), "{refused:?}");
        assert!(refused.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{refused:?}");
    }
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    let mut tasks = server.tasks();
    let mut more = 0;
    // The requests of callers that have gone still use the memory.
    eventually(async || {
        let refused = tokio::time::timeout(std::time::Duration::from_millis(100), tasks.submit_task(large(99))).await;
        more += usize::from(refused.is_err());
        check(matches!(refused, Ok(Err(_))), || format!("{more} more requests wait"))
    })
    .await;
    assert!(waiting + more <= 32, "{waiting} and {more}");
    faults.clear();
    wait_for_sample(&server.address, "lineshaft_memory_used_bytes{part=\"requests\"}", "0");
    server.submit(large(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_make_room_work_while_submissions_have_used_up_the_memory() {
    let config = format!("{CONFIG}{SMALL}[http]\nbody_timeout = \"10m\"\n");
    let server = Server::start(&config);
    let [cancelled, deleted] = [server.submit(noop()).await, server.submit(noop()).await];
    let head = "POST /lineshaft.v1.TaskService/SubmitTask HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 8000000\r\n\r\n";
    let mut open = Vec::new();
    // In pieces that become smaller, until hardly a byte is left.
    for piece in [7 << 20, 1 << 20, 16 << 10, 64, 1] {
        eventually(async || {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
            // Fails once the server has refused the request.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b' '; piece]));
            let is_refused = stream.read(&mut [0; 1]).is_ok();
            open.push(stream);
            check(is_refused, || format!("{} bytes are used", used(&server)))
        })
        .await;
    }
    let refused = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!(reason(&refused), "MEMORY_FULL", "{refused:?}");
    server.set_paused("default", true).await;
    for id in [&cancelled, &deleted] {
        let cancel = v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() };
        server.tasks().cancel_task(cancel).await.unwrap();
    }
    let filter = v1::TaskFilter { task_ids: vec![deleted], ..Default::default() };
    let delete = v1::DeleteTasksRequest { filter: Some(filter), validate_only: false };
    assert_eq!(server.tasks().delete_tasks(delete).await.unwrap().into_inner().deleted, 1);
    let refused = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!(reason(&refused), "MEMORY_FULL", "the memory is still used up: {refused:?}");
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
    drop(open);
}
