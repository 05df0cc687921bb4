//! A rolling upgrade on one machine: a server under load gets SIGTERM, as the kubelet sends it after preStop, and the
//! next server starts with the same data directory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lineshaft::proto::v1::{self, TaskState, task_service_client::TaskServiceClient, watch_tasks_response::Kind};
use tokio::sync::{mpsc, watch};

use crate::support::{Server, TIMEOUT, noop, task};

const UPGRADES: usize = 3;
const SUBMITTERS: usize = 4;
/// Tasks acknowledged between two upgrades.
const BETWEEN: usize = 150;
/// Time before a client repeats a failed call.
const RETRY_DELAY: Duration = Duration::from_millis(20);
/// The time that the chart allows in addition to the drain limit.
const GRACE: Duration = Duration::from_secs(15);
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Naps outlast the drain limit, so they are interrupted and start again on the next server.
const CONFIG: &str = "
[server]
drain_limit = \"1s\"
[retention]
count = 1000000
[[pool]]
name = \"default\"
size = 4
[[pool]]
name = \"naps\"
kind = \"async\"
size = 50
[[handler]]
name = \"nap\"
runner = \"builtin\"
builtin = \"io\"
pool = \"naps\"
";

/// The current address of the server, like the name of a Service in a cluster.
type Address = watch::Receiver<String>;

fn tasks(address: &Address) -> TaskServiceClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", *address.borrow())).unwrap();
    TaskServiceClient::new(endpoint.connect_lazy())
}

/// Submits until the sender of the address is dropped. Repeats a failed call with the same request id.
async fn submit_all(address: Address, submitter: usize, acknowledged: mpsc::UnboundedSender<String>) {
    for n in 0.. {
        let request = if n % 20 == 0 { task("nap", "3") } else { noop() };
        let request = v1::SubmitTaskRequest { request_id: format!("load-{submitter}-{n}"), ..request };
        let id = loop {
            if address.has_changed().is_err() {
                return;
            }
            match tasks(&address).submit_task(request.clone()).await {
                Ok(answer) => break answer.into_inner().task_id,
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        };
        if acknowledged.send(id).is_err() {
            return;
        }
    }
}

/// The events that one watcher received from all servers.
#[derive(Default)]
struct Watcher {
    revision: u64,
    resume_token: String,
    resumed: usize,
    interrupted: usize,
    ends: HashMap<String, TaskState>,
}

impl Watcher {
    fn add(&mut self, event: v1::TaskEvent) {
        assert_eq!(event.revision, self.revision + 1, "an event is missing or was sent twice");
        let state = event.state();
        if event.previous_state() == TaskState::Running && state == TaskState::Queued {
            self.interrupted += 1;
        }
        self.revision = event.revision;
        self.resume_token = event.resume_token;
        if matches!(state, TaskState::Completed | TaskState::Failed | TaskState::Cancelled) {
            let duplicate = self.ends.insert(event.task_id, state);
            assert_eq!(duplicate, None, "revision {}: the task ended twice", self.revision);
        }
    }

    /// Watches all events until every task of `all` has ended.
    async fn run(mut self, address: Address, mut all: watch::Receiver<Option<Arc<HashSet<String>>>>) -> Self {
        loop {
            let request = v1::WatchTasksRequest { resume_token: self.resume_token.clone(), ..Default::default() };
            let Ok(stream) = tasks(&address).watch_tasks(request).await else {
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            };
            self.resumed += 1;
            let mut stream = stream.into_inner();
            loop {
                if all.borrow_and_update().as_ref().is_some_and(|all| all.iter().all(|id| self.ends.contains_key(id))) {
                    return self;
                }
                tokio::select! {
                    step = stream.message() => match step {
                        Ok(Some(v1::WatchTasksResponse { kind: Some(Kind::Event(event)) })) => self.add(*event),
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => break,
                    },
                    _ = all.changed() => {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_upgrade_under_load_loses_no_task_and_no_event() {
    let mut server = Server::start(CONFIG);
    let (address_sender, address) = watch::channel(server.address.clone());
    let (all, expected) = watch::channel(None);
    let watcher = Watcher { resume_token: server.oldest_token().await, ..Watcher::default() };
    let watcher = tokio::spawn(watcher.run(address.clone(), expected));
    let (sender, mut accepted) = mpsc::unbounded_channel();
    let load: Vec<_> =
        (0..SUBMITTERS).map(|one| tokio::spawn(submit_all(address.clone(), one, sender.clone()))).collect();
    drop(sender);

    let mut acknowledged = HashSet::new();
    for upgrade in 0..UPGRADES {
        let enough = acknowledged.len() + BETWEEN;
        while acknowledged.len() < enough {
            let id =
                tokio::time::timeout(TIMEOUT, accepted.recv()).await.expect("a submission within the timeout").unwrap();
            assert!(acknowledged.insert(id), "two tasks have the same id");
        }
        let began = Instant::now();
        server.signal(rustix::process::Signal::TERM);
        let status = server.wait_exit();
        let took = began.elapsed();
        assert!(status.success(), "upgrade {upgrade}: {status}: {}", server.log());
        assert!(took < DRAIN_LIMIT + GRACE, "upgrade {upgrade} took {took:?}");
        server.start_again();
        address_sender.send_replace(server.address.clone());
        println!("upgrade {upgrade}: {} acknowledged, {took:?}", acknowledged.len());
    }
    // The last server also accepts tasks.
    let enough = acknowledged.len() + BETWEEN;
    while let Ok(Some(id)) = tokio::time::timeout(TIMEOUT, accepted.recv()).await {
        acknowledged.insert(id);
        if acknowledged.len() == enough {
            accepted.close();
        }
    }
    for one in load {
        one.await.unwrap();
    }
    all.send_replace(Some(Arc::new(acknowledged.clone())));
    let watcher = tokio::time::timeout(2 * TIMEOUT, watcher).await.expect("all tasks end").unwrap();
    assert!(watcher.resumed > UPGRADES, "no watch was interrupted");
    assert!(watcher.interrupted > 0, "no task was interrupted");
    for id in &acknowledged {
        assert_eq!(watcher.ends[id], TaskState::Completed, "{id}");
        assert_eq!(server.get(id).await.state(), TaskState::Completed);
    }
    println!("{} events, {} tasks", watcher.revision, watcher.ends.len());
}
