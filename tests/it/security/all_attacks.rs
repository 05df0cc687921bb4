//! All attacks on the memory and the slots of the server at once, in a control group of the size that docs/kubernetes.md gives
//! for a server with its defaults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use lineshaft::proto::v1;
use tokio::task::JoinHandle;

use super::public_calls::{assert_healthy, flood, send_large_bodies};
use super::unread_requests::{incomplete_call, submit_without_end, unread_caller, with_bytes};
use super::unread_responses::{LIST, Unread, WATCH, total};
use super::{Caller, Tokens};
use crate::health_endpoints::{get, health_address, samples};
use crate::http1_client::{Connection, post};
use crate::http2_client::connect;
use crate::memory::{LIMIT, SMALL};
use crate::support::{ControlGroup, Faults, Server, check, eventually, eventually_blocking, noop, seconds, task};

const WAIT: &str = "/lineshaft.v1.TaskService/WaitTask";
const BATCH: &str = "/lineshaft.v1.TaskService/BatchSubmitTasks";
/// Submissions of the other tenant during the attacks.
const SUBMISSIONS: usize = 4;
/// The attackers and the others have the same address here.
const CONFIG: &str = "
[server]
health_listen = \"127.0.0.1:0\"
keepalive_interval = \"1h\"
max_connections_per_address = 450
[[pool]]
name = \"default\"
size = 4
max_running_per_namespace = 3
[[pool]]
name = \"parked\"
paused = true
queue_limit = 100
[[handler]]
name = \"parked\"
runner = \"builtin\"
builtin = \"compute\"
pool = \"parked\"
";

/// What the parts of the memory hold that are returned when the attacks end.
fn used(server: &Server) -> u64 {
    let samples = samples(&health_address(server));
    let part = |part| samples[&format!("lineshaft_memory_used_bytes{{part=\"{part}\"}}")].parse::<u64>().unwrap();
    ["requests", "small_requests", "responses", "stream_reads"].map(part).iter().sum()
}

/// Attacks that are repeated until they are stopped.
#[derive(Default)]
struct Repeated {
    stop: Arc<AtomicBool>,
    attacks: Vec<(&'static str, Arc<AtomicUsize>, JoinHandle<()>)>,
}

impl Repeated {
    fn start<F: Future<Output = ()> + Send>(
        &mut self,
        name: &'static str,
        mut round: impl FnMut() -> F + Send + 'static,
    ) {
        let (stop, rounds) = (self.stop.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = rounds.clone();
        let attack = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                round().await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        self.attacks.push((name, rounds, attack));
    }

    /// As [`Repeated::start`], for what blocks its thread.
    fn start_blocking(&mut self, name: &'static str, round: impl Fn() + Clone + Send + 'static) {
        self.start(name, move || {
            let round = round.clone();
            async { tokio::task::spawn_blocking(round).await.unwrap() }
        });
    }

    fn rounds(&self) -> Vec<(&str, usize)> {
        self.attacks.iter().map(|(name, rounds, _)| (*name, rounds.load(Ordering::Relaxed))).collect()
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for (_, _, attack) in self.attacks {
            attack.await.unwrap();
        }
    }
}

struct Attackers {
    /// Of one tenant.
    loud: String,
    /// Reads everything.
    viewer: String,
    /// Submits tasks with large results.
    large: String,
}

fn start_repeated(server: &Server, attackers: &Attackers) -> Repeated {
    let mut repeated = Repeated::default();
    let (address, health) = (server.address.clone(), health_address(server));
    for address in [address.clone(), health] {
        repeated.start_blocking("health checks that never arrive", move || {
            let mut flooding = flood(&address);
            let first = &mut flooding[0];
            eventually_blocking(|| check(first.count_ended() > 0, || "no call has ended".to_owned()));
        });
    }
    repeated.start_blocking("large health checks", {
        let address = address.clone();
        move || send_large_bodies(&address, 4)
    });
    let authorization = format!("Bearer {}", attackers.loud);
    let json = format!("{{\"tasks\":[{}{{}}]}}", "{\"handler\":\"\"},".repeat(60_000));
    let json = format!("{json}{}", " ".repeat((15 << 20) - json.len()));
    let json = post(BATCH, "application/json", &[("authorization", &authorization)], json.as_bytes());
    repeated.start_blocking("large JSON", move || {
        let mut connection = Connection::open_at(&address);
        assert_ne!(connection.send(&json).status, 200);
    });
    let loud = Caller::new(server, &attackers.loud);
    for _ in 0..4 {
        let loud = loud.clone();
        repeated.start("streams of large tasks", move || {
            let loud = loud.clone();
            async move {
                let large = v1::SubmitTaskRequest { handler: "parked".to_owned(), ..with_bytes(1 << 20) };
                let requests = vec![v1::SubmitTasksRequest { sequence: 1, task: Some(large) }; 32];
                // Refused, or ended by a refusal, when the memory is used up.
                if let Ok(responses) = loud.tasks().submit_tasks(stream::iter(requests)).await {
                    responses.into_inner().map(drop).collect::<()>().await;
                }
            }
        });
    }
    let large = Caller::new(server, &attackers.large);
    repeated.start("large results", move || {
        let large = large.clone();
        async move {
            let task = task("compute", &format!("\"{}\"", "x".repeat(1_000_000)));
            // Refused when the memory is used up.
            let _ = large.tasks().submit_task(task).await;
        }
    });
    repeated
}

/// Calls and connections that stay open.
struct Held {
    unread: Vec<Unread>,
    others: Vec<JoinHandle<()>>,
    _silent: Vec<std::net::TcpStream>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.others.iter().for_each(JoinHandle::abort);
    }
}

async fn hold(server: &Server, attackers: &Attackers) -> Held {
    let id = {
        let day = task("io", "86400");
        Caller::new(server, &attackers.loud).tasks().submit_task(day).await.unwrap().into_inner().task_id
    };
    let page = v1::ListTasksRequest { page_size: 1_000, ..Default::default() };
    let watch = v1::WatchTasksRequest { resume_token: oldest_token(server, attackers).await, ..Default::default() };
    let wait = v1::WaitTaskRequest { task_id: id, timeout: seconds(60) };
    let lists = (0..3).map(|_| Unread::open(server, 0, LIST, &attackers.viewer, &page));
    let watches = (0..2).map(|_| Unread::open(server, 0, WATCH, &attackers.viewer, &watch));
    let waits = (0..16).map(|_| Unread::open(server, 0, WAIT, &attackers.loud, &wait));
    let unread = lists.chain(watches).chain(waits).collect();
    let streams = (0..60).map(|_| {
        let call = submit_without_end(unread_caller(server, &attackers.loud), Arc::default());
        tokio::spawn(async move {
            // Held, or refused.
            let _response = call.await;
            std::future::pending::<()>().await;
        })
    });
    let messages = ["BatchSubmitTasks", "WatchTasks", "ListTasks", "RunTask"].repeat(3).into_iter().map(|path| {
        let call = incomplete_call(unread_caller(server, &attackers.loud), path);
        tokio::spawn(async move { drop(call.await) })
    });
    let others = streams.chain(messages).collect();
    Held { unread, others, _silent: (0..60).map(|_| connect(server)).collect() }
}

async fn oldest_token(server: &Server, attackers: &Attackers) -> String {
    let system = Caller::new(server, &attackers.viewer).system();
    let info = system.clone().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    info.oldest_resume_token
}

/// Fills the store with events and large results, so that watches from the beginning read it.
async fn fill(quiet: &Caller) {
    let labels = (0..16).map(|n| (format!("label-{n}"), "x".repeat(250))).collect();
    let labeled = v1::BatchSubmitTasksRequest {
        tasks: vec![v1::SubmitTaskRequest { labels, ..noop() }; 800],
        ..Default::default()
    };
    quiet.tasks().batch_submit_tasks(labeled).await.unwrap();
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 2_000], ..Default::default() };
    let ids = quiet.tasks().batch_submit_tasks(batch).await.unwrap().into_inner().task_ids;
    for _ in 0..8 {
        let large = task("compute", &format!("\"{}\"", "x".repeat(1_000_000)));
        quiet.tasks().submit_task(large).await.unwrap();
    }
    finished(quiet, ids.last().unwrap()).await;
}

async fn finished(caller: &Caller, id: &str) {
    eventually(async || {
        let request = v1::WaitTaskRequest { task_id: id.to_owned(), timeout: seconds(60) };
        let waited = caller.tasks().wait_task(request).await.map_err(|refused| format!("{refused:?}"))?;
        check(waited.into_inner().finished, || format!("{id} is not finished"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_documented_size_withstands_all_attacks_at_once() {
    let tokens = Tokens::new();
    let attackers = Attackers {
        loud: tokens.create("loud", "submitter", "loud", &[]),
        viewer: tokens.create("viewer", "viewer", "*", &[]),
        large: tokens.create("large", "submitter", "large", &[]),
    };
    let quiet = tokens.create("quiet", "submitter", "quiet", &[]);
    let group = ControlGroup::create(LIMIT);
    println!("control group: {:?}", group.as_ref().map(ControlGroup::path));
    let small = if group.is_some() { "" } else { SMALL };
    let config = format!("[auth]\ntokens_file = {:?}\n{CONFIG}{small}", tokens.path());
    let faults = Faults::new();
    let variables = faults.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let server = Server::start_limited(&config, group.as_ref(), &variables);
    let quiet = Caller::new(&server, &quiet);
    fill(&quiet).await;
    println!("peak {} MiB before the attacks", server.peak_memory() >> 20);

    let mut held = hold(&server, &attackers).await;
    faults.set(&["sync hang journal.db", "sync hang journal.db-wal"]);
    let repeated = start_repeated(&server, &attackers);
    // The disk hangs until the requests that wait for it have used up their share.
    eventually(async || check(used(&server) > 16 << 20, || format!("{} bytes are used", used(&server)))).await;
    assert_eq!(get(&server.address, "/health/live", "").status, 200);
    println!("{} MiB are used, peak {} MiB", used(&server) >> 20, server.peak_memory() >> 20);
    faults.set(&["sync slow journal.db", "sync slow journal.db-wal"]);

    let mut submitted = Vec::new();
    while submitted.len() < SUBMISSIONS || repeated.rounds().iter().any(|(_, rounds)| *rounds < 2) {
        submitted.push(quiet.tasks().submit_task(noop()).await.unwrap().into_inner().task_id);
        assert_healthy(&server.address).await;
        assert_healthy(&health_address(&server)).await;
        assert!(server.peak_memory() <= LIMIT, "after {:?}: {} bytes", repeated.rounds(), server.peak_memory());
    }
    finished(&quiet, submitted.last().unwrap()).await;
    let begun = total(&mut held.unread, |calls| calls.begun + calls.refused);
    println!("{} submissions, {begun} unread responses, {:?}", submitted.len(), repeated.rounds());
    println!("{} MiB are used, peak {} MiB", used(&server) >> 20, server.peak_memory() >> 20);
    faults.clear();
    repeated.stop().await;
    drop(held);

    eventually(async || check(used(&server) == 0, || format!("{} bytes are still used", used(&server)))).await;
    assert_eq!(group.as_ref().map_or(0, ControlGroup::killed), 0, "killed for memory");
    assert!(server.peak_memory() <= LIMIT, "{} bytes", server.peak_memory());
    // The slots are free again, those of waits too.
    let loud = Caller::new(&server, &attackers.loud);
    let calls = (0..100).map(|_| async {
        let id = loud.tasks().submit_task(noop()).await.unwrap().into_inner().task_id;
        let request = v1::WaitTaskRequest { task_id: id, timeout: seconds(60) };
        assert!(loud.tasks().wait_task(request).await.unwrap().into_inner().finished);
    });
    join_all(calls).await;
}
