//! Fairness: what one caller or namespace uses leaves room for the others.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use futures_util::stream::{FuturesUnordered, StreamExt};
use lineshaft::proto::v1::{self, Priority, TaskState, payload::Kind};
use tonic::{Code, Status};

use super::connection_limits::post_to;
use super::{Caller, Tokens};
use crate::http1_client::Connection;
use crate::http2_client::{END_HEADERS, END_STREAM, HEADERS, connect, frame, read_frame};
use crate::support::{Faults, Server, check, eventually, noop, reason, seconds, task};

const SUBMIT: &str = "/lineshaft.v1.TaskService/SubmitTask";

fn of(namespace: &str, priority: Priority, task: v1::SubmitTaskRequest) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { namespace: namespace.into(), priority: priority.into(), ..task }
}

async fn running(server: &Server) -> i64 {
    let request = v1::GetPoolMetricsRequest { name: "default".into(), ..Default::default() };
    server.pools().get_pool_metrics(request).await.unwrap().into_inner().metrics.unwrap().running
}

#[tokio::test]
async fn a_namespace_leaves_workers_to_others_whatever_its_tasks_and_priorities_are() {
    let mut server = Server::start("[[pool]]\nname = \"default\"\nsize = 4\nmax_running_per_namespace = 3\n");
    let pool = server.pools().get_pool(v1::GetPoolRequest { name: "default".into() }).await.unwrap().into_inner();
    assert_eq!(pool.pool.unwrap().max_running_per_namespace, 3);
    let day = || of("loud", Priority::Critical, task("io", "86400"));
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![day(); 600], batch_id: String::new() };
    let ids = server.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    for id in &ids[..3] {
        server.wait_started(id).await;
    }
    let quiet = async |server: &Server| {
        let id = server.submit(of("quiet", Priority::Low, noop())).await;
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
        assert_eq!(running(server).await, 3);
    };
    quiet(&server).await;
    server.kill9();
    server.start_again();
    for id in &ids[..3] {
        server.wait_started(id).await;
    }
    quiet(&server).await;
    let cancel = v1::CancelTaskRequest { task_id: ids[0].clone(), ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    server.wait_started(&ids[3]).await;
    quiet(&server).await;
}

/// Callers of two namespaces.
struct Tenants {
    tokens: Tokens,
    loud: String,
    quiet: String,
}

impl Tenants {
    fn new() -> Self {
        let tokens = Tokens::new();
        let loud = tokens.create("loud", "submitter", "loud", &[]);
        let quiet = tokens.create("quiet", "submitter", "quiet", &[]);
        Self { tokens, loud, quiet }
    }
}

async fn submit(caller: &Caller, request: v1::SubmitTaskRequest) -> Result<String, Status> {
    caller.tasks().submit_task(request).await.map(|answer| answer.into_inner().task_id)
}

async fn wait(caller: &Caller, id: &str) -> Result<v1::WaitTaskResponse, Status> {
    let request = v1::WaitTaskRequest { task_id: id.to_owned(), timeout: seconds(60) };
    caller.tasks().wait_task(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn waits_of_one_caller_leave_room_to_the_calls_and_waits_of_others() {
    let tenants = Tenants::new();
    let server = tenants.tokens.serve("[server]\nmax_in_flight = 4\nmax_open_streams = 60\n");
    let [loud, quiet] = [&tenants.loud, &tenants.quiet].map(|token| Caller::new(&server, token));
    let id = submit(&loud, task("io", "3600")).await.unwrap();
    let mut waits: FuturesUnordered<_> = (0..100).map(|_| wait(&loud, &id)).collect();
    // 57 % of the places of waits.
    for _ in 0..100 - 34 {
        let refused = waits.next().await.unwrap().unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
        assert!(refused.message().contains("server.max_open_streams"), "{refused:?}");
    }
    let mine = submit(&quiet, noop()).await.unwrap();
    assert!(wait(&quiet, &mine).await.unwrap().finished);
    quiet.tasks().watch_tasks(v1::WatchTasksRequest::default()).await.unwrap();
    submit(&loud, noop()).await.unwrap();
    assert_eq!(wait(&loud, &id).await.unwrap_err().code(), Code::ResourceExhausted, "the others still wait");
    drop(waits);
    let ended = submit(&loud, noop()).await.unwrap();
    eventually(async || wait(&loud, &ended).await.map_err(|refused| refused.to_string())).await;
}

#[tokio::test]
async fn waits_over_http_leave_room_to_other_calls() {
    let server = Server::start("[server]\nmax_in_flight = 6\nmax_open_streams = 100\n");
    let id = server.submit(task("io", "3600")).await;
    let body = format!("{{\"taskId\":\"{id}\",\"timeout\":\"60s\"}}");
    let json = format!(
        "POST /lineshaft.v1.TaskService/WaitTask HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let plain = format!("GET /api/task/{id}?wait=60 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut open = Vec::new();
    for request in [&json, &plain].repeat(6) {
        let mut waiting = Connection::open(&server);
        waiting.write(request.as_bytes());
        open.push(waiting);
        // A request has a slot until it is complete.
        eventually(async || {
            let list = Connection::open(&server).send(b"GET /api/tasks HTTP/1.1\r\nhost: localhost\r\n\r\n");
            check(list.status == 200, || format!("{list:?}"))
        })
        .await;
    }
    let cancel = v1::CancelTaskRequest { task_id: id, ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    for mut waiting in open {
        assert_eq!(waiting.read_response().status, 200, "it waited for the end of the task");
    }
}

/// Opens submissions whose requests never arrive, and waits until `refused` of them are refused.
fn half_open(stream: &mut TcpStream, token: Option<&str>, count: u32, refused: usize) {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let block = post_to(SUBMIT, bearer.as_deref().map(|bearer| ("authorization", bearer)).as_slice());
    let requests: Vec<u8> = (0..count).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &block)).collect();
    stream.write_all(&requests).unwrap();
    let mut ended = 0;
    while ended < refused {
        let frame = read_frame(stream).expect("a response instead of a closed connection");
        ended += usize::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
    }
}

#[tokio::test]
async fn calls_of_one_caller_leave_room_to_those_of_others() {
    let tenants = Tenants::new();
    let server = tenants.tokens.serve("[server]\nmax_in_flight = 40\n");
    let [loud, quiet] = [&tenants.loud, &tenants.quiet].map(|token| Caller::new(&server, token));
    let mut stream = connect(&server);
    // 57 % of the places of calls.
    half_open(&mut stream, Some(&tenants.loud), 40, 40 - 22);
    let refused = submit(&loud, noop()).await.unwrap_err();
    assert_eq!(reason(&refused), "OVERLOADED");
    assert!(refused.message().contains("present share of `server.max_in_flight`"), "{refused:?}");
    let mut submissions: FuturesUnordered<_> = (0..6).map(|_| submit(&quiet, noop())).collect();
    while let Some(submitted) = submissions.next().await {
        submitted.unwrap();
    }
}

#[tokio::test]
async fn calls_that_make_room_get_in_while_submissions_have_all_places() {
    let server = Server::start("[server]\nmax_in_flight = 4\n");
    let id = server.submit(task("io", "3600")).await;
    let mut stream = connect(&server);
    // Two thirds are for one address.
    half_open(&mut stream, None, 4, 2);
    let refused = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!(reason(&refused), "OVERLOADED");
    server.set_paused("default", true).await;
    let cancel = v1::CancelTaskRequest { task_id: id, ..Default::default() };
    server.tasks().cancel_task(cancel).await.unwrap();
    server.tasks().delete_tasks(v1::DeleteTasksRequest { filter: None, validate_only: false }).await.unwrap();
    server.system().get_system_health(v1::GetSystemHealthRequest {}).await.unwrap();
    let clear = b"POST /api/clear-completed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(Connection::open(&server).send(clear).status, 200);
    let refused = server.tasks().submit_task(noop()).await.unwrap_err();
    assert_eq!(reason(&refused), "OVERLOADED", "the places are still taken");
    server.system().drain(v1::DrainRequest::default()).await.unwrap();
}

fn with_bytes(bytes: usize) -> v1::SubmitTaskRequest {
    let payload = v1::Payload { kind: Some(Kind::Data(vec![7; bytes].into())), content_type: String::new() };
    v1::SubmitTaskRequest { payload: Some(payload), ..noop() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_of_one_caller_leave_memory_to_others() {
    const BODIES: usize = 64;
    let tenants = Tenants::new();
    let server = tenants.tokens.serve("[limits]\nrequest_bytes = \"32MiB\"\n");
    let head = format!(
        "POST {SUBMIT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         authorization: Bearer {}\r\ncontent-length: 1000000\r\n\r\n",
        tenants.loud
    );
    let open = |_| {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        // Fails once the server has refused the request.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b' '; 512 << 10]));
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut bodies: Vec<_> = (0..BODIES).map(open).collect();
    let is_open =
        |stream: &mut TcpStream| stream.peek(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    // 57 % of the memory. A body that was refused returns what it had.
    eventually(async || {
        bodies.retain_mut(is_open);
        check(bodies.len() <= 37, || format!("{} bodies are not refused", bodies.len()))
    })
    .await;
    let quiet = Caller::new(&server, &tenants.quiet);
    submit(&quiet, with_bytes(1 << 20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_of_one_caller_that_wait_for_the_disk_leave_memory_to_others() {
    let tenants = Tenants::new();
    let faults = Faults::new();
    let variables = faults.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let auth = format!("[auth]\ntokens_file = {:?}\n[limits]\nrequest_bytes = \"32MiB\"\n", tenants.tokens.path());
    let server = Server::start_with(&auth, &variables);
    let [loud, quiet] = [&tenants.loud, &tenants.quiet].map(|token| Caller::new(&server, token));
    faults.set(&["sync hang journal.db", "sync hang journal.db-wal"]);
    let mut calls: FuturesUnordered<_> = (0..64).map(|_| submit(&loud, with_bytes(1 << 20))).collect();
    // 18 fit, or fewer if parts of bodies that are refused later use the memory meanwhile.
    for _ in 0..64 - 18 {
        let refused = calls.next().await.unwrap().unwrap_err();
        assert_eq!(reason(&refused), "MEMORY_FULL", "{refused:?}");
    }
    let waiting = submit(&quiet, with_bytes(1 << 20));
    let cleared = async {
        // The submission of the other tenant is not refused before at least one of these.
        calls.extend((0..19).map(|_| submit(&loud, with_bytes(1 << 20))));
        assert_eq!(reason(&calls.next().await.unwrap().unwrap_err()), "MEMORY_FULL");
        faults.clear();
    };
    let (submitted, ()) = tokio::join!(waiting, cleared);
    submitted.unwrap();
    let mut accepted = 0;
    while let Some(submitted) = calls.next().await {
        match submitted {
            Ok(_) => accepted += 1,
            Err(refused) => assert_eq!(reason(&refused), "MEMORY_FULL", "{refused:?}"),
        }
    }
    assert!(accepted > 0);
}
