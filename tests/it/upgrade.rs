//! A rolling upgrade, played on one machine: the server is under load, gets SIGTERM as the kubelet sends it after
//! preStop, and the next one starts on the same volume.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lineshaft::proto::v1::{self, TaskState, task_service_client::TaskServiceClient, watch_tasks_response::Kind};
use tokio::sync::{mpsc, watch};

use crate::support::{PATIENCE, Server, noop, task};

const UPGRADES: usize = 3;
const SUBMITTERS: usize = 4;
/// Tasks that are acknowledged between two upgrades.
const BETWEEN: usize = 150;
/// What the chart gives on top of the drain's limit.
const GRACE: Duration = Duration::from_secs(15);
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Naps last longer than the drain may: they are interrupted, and start again with the next server.
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

/// Where the server is: what a Service's name is in a cluster.
type Address = watch::Receiver<String>;

fn tasks(address: &Address) -> TaskServiceClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", *address.borrow())).unwrap();
    TaskServiceClient::new(endpoint.connect_lazy())
}

/// Submits until the address is gone; repeats with the same request id whatever gets no answer.
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
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        if acknowledged.send(id).is_err() {
            return;
        }
    }
}

/// What one watcher saw over all servers.
#[derive(Default)]
struct Seen {
    revision: u64,
    resumed: usize,
    interrupted: usize,
    ends: HashMap<String, TaskState>,
}

impl Seen {
    fn take(&mut self, event: v1::TaskEvent) {
        assert_eq!(event.revision, self.revision + 1, "an event is missing or came twice");
        self.revision = event.revision;
        if event.previous_state() == TaskState::Running && event.state() == TaskState::Queued {
            self.interrupted += 1;
        }
        if matches!(event.state(), TaskState::Completed | TaskState::Failed | TaskState::Cancelled) {
            let twin = self.ends.insert(event.task_id.clone(), event.state());
            assert_eq!(twin, None, "{} ended twice", event.task_id);
        }
    }

    /// Watches everything until all of these have ended.
    async fn follow(mut self, address: Address, mut all: watch::Receiver<Option<Arc<HashSet<String>>>>) -> Self {
        loop {
            let request = v1::WatchTasksRequest { after_revision: Some(self.revision), ..Default::default() };
            let Ok(stream) = tasks(&address).watch_tasks(request).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
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
                        Ok(Some(v1::WatchTasksResponse { kind: Some(Kind::Event(event)) })) => self.take(event),
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
async fn an_upgrade_under_load_loses_no_task_and_no_event_and_is_over_within_the_grace() {
    let mut server = Server::start(CONFIG);
    let (told, address) = watch::channel(server.address.clone());
    let (all, everything) = watch::channel(None);
    let watcher = tokio::spawn(Seen::default().follow(address.clone(), everything));
    let (sender, mut accepted) = mpsc::unbounded_channel();
    let load: Vec<_> =
        (0..SUBMITTERS).map(|one| tokio::spawn(submit_all(address.clone(), one, sender.clone()))).collect();
    drop(sender);

    let mut acknowledged = HashSet::new();
    for upgrade in 0..UPGRADES {
        let enough = acknowledged.len() + BETWEEN;
        while acknowledged.len() < enough {
            let id = tokio::time::timeout(PATIENCE, accepted.recv()).await.expect("load in time").unwrap();
            assert!(acknowledged.insert(id), "two tasks were given one id");
        }
        let began = Instant::now();
        server.signal(rustix::process::Signal::TERM);
        let status = server.wait_exit();
        let took = began.elapsed();
        assert!(status.success(), "upgrade {upgrade}: {status}: {}", server.log());
        assert!(took < DRAIN_LIMIT + GRACE, "upgrade {upgrade} took {took:?}");
        server.start_again();
        told.send_replace(server.address.clone());
        println!("upgrade {upgrade}: {} acknowledged, {took:?}", acknowledged.len());
    }
    // The last server serves as the ones before.
    let enough = acknowledged.len() + BETWEEN;
    while let Ok(Some(id)) = tokio::time::timeout(PATIENCE, accepted.recv()).await {
        acknowledged.insert(id);
        if acknowledged.len() == enough {
            accepted.close();
        }
    }
    for one in load {
        one.await.unwrap();
    }
    all.send_replace(Some(Arc::new(acknowledged.clone())));
    let seen = tokio::time::timeout(2 * PATIENCE, watcher).await.expect("everything ends").unwrap();
    assert!(seen.resumed > UPGRADES, "the watcher was never cut off");
    assert!(seen.interrupted > 0, "nothing ran when the servers ended");
    for id in &acknowledged {
        assert_eq!(seen.ends[id], TaskState::Completed, "{id}");
        assert_eq!(server.get(id).await.state(), TaskState::Completed);
    }
    println!("{} events, {} tasks", seen.revision, seen.ends.len());
}
