//! A system clock that is set while the server runs or while it is stopped.

use lineshaft::proto::v1::{self, TaskState};

use crate::health_endpoints::get;
use crate::support::{Faults, Server, check, eventually, noop, seconds};

const DAY_FORWARD: &str = "time 86400 *";
const HOUR_BACK: &str = "time -3600 *";
const CONFIG: &str = "
[retention]
age = \"1h\"
[[pool]]
name = \"default\"
size = 2
[[pool]]
name = \"paused\"
size = 1
paused = true
[[handler]]
name = \"wait-for-file\"
runner = \"process\"
argv = [\"/bin/sh\", \"-c\", \"while [ ! -e \\\"$0\\\" ]; do sleep 0.05; done\"]
arg_pattern = '(?s).*'
";

fn start(faults: &Faults) -> Server {
    let variables = faults.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    Server::start_with(CONFIG, &variables)
}

fn delayed(delay: i64) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { delay: seconds(delay), ..noop() }
}

fn expiring() -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest { pool: "paused".to_owned(), expires_after: seconds(3_600), ..noop() }
}

fn micros(time: Option<&prost_types::Timestamp>) -> i64 {
    let time = time.unwrap();
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

const HOUR: i64 = 3_600 * 1_000_000;

#[tokio::test]
async fn a_step_forward_deletes_no_history_and_expires_no_task() {
    let faults = Faults::new();
    let server = start(&faults);
    let finished = server.submit(noop()).await;
    server.wait_finished(&finished).await;
    let expiring = server.submit(expiring()).await;
    faults.set(&[DAY_FORWARD]);
    // Each of them lets the scheduler look for what is due.
    let mut last = finished.clone();
    for _ in 0..20 {
        last = server.submit(noop()).await;
        server.wait_finished(&last).await;
    }
    server.get(&finished).await;
    assert_eq!(server.get(&expiring).await.state(), TaskState::Queued);
    let apart = micros(server.get(&last).await.submitted_at.as_ref())
        - micros(server.get(&finished).await.submitted_at.as_ref());
    assert!((0..HOUR).contains(&apart), "submitted {apart} us apart");
    server.wait_logged("the system clock was set forward by 1d").await;
    faults.clear();
    server.wait_logged("the system clock was set back by 1d").await;
    assert_eq!(server.get(&expiring).await.state(), TaskState::Queued);
}

#[tokio::test]
async fn a_step_back_delays_no_task_and_no_time_runs_back() {
    let faults = Faults::new();
    let server = start(&faults);
    let gate = server.path("gate");
    let args = vec![gate.display().to_string()];
    let running = v1::SubmitTaskRequest { handler: "wait-for-file".to_owned(), args, ..Default::default() };
    let running = server.submit(running).await;
    server.wait_started(&running).await;
    let delayed = server.submit(delayed(3)).await;
    faults.set(&[HOUR_BACK]);
    server.wait_logged("the system clock was set back by 1h").await;
    // One that the step has not delayed ends before the time limit of this wait.
    let delayed = server.wait_finished(&delayed).await;
    let waited = micros(delayed.started_at.as_ref()) - micros(delayed.submitted_at.as_ref());
    assert!((3_000_000..HOUR).contains(&waited), "started after {waited} us");
    std::fs::write(&gate, "").unwrap();
    let finished = server.wait_finished(&running).await;
    let ran = micros(finished.finished_at.as_ref()) - micros(finished.started_at.as_ref());
    assert!((1_000..HOUR).contains(&ran), "ran for {ran} us");
    assert!(finished.finished_at.unwrap().seconds >= delayed.submitted_at.unwrap().seconds);
}

#[tokio::test]
async fn a_restart_with_a_clock_that_is_behind_extends_no_wait() {
    let faults = Faults::new();
    let mut server = start(&faults);
    let delayed = server.submit(delayed(4)).await;
    let expiring = server.submit(v1::SubmitTaskRequest { expires_after: seconds(4), ..expiring() }).await;
    server.kill9();
    faults.set(&[HOUR_BACK]);
    server.start_again();
    let delayed = server.wait_finished(&delayed).await;
    assert!(micros(delayed.finished_at.as_ref()) >= micros(delayed.submitted_at.as_ref()));
    let expired = server.wait_finished(&expiring).await;
    assert_eq!(expired.state(), TaskState::Failed, "{expired:?}");
}

#[tokio::test]
async fn metrics_and_health_measure_the_wait_of_a_task_by_elapsed_time() {
    let faults = Faults::new();
    let server = start(&faults);
    server.submit(expiring()).await;
    faults.set(&[DAY_FORWARD]);
    server.wait_logged("the system clock was set forward by 1d").await;
    eventually(async || {
        let health = get(&server.address, "/health", "").json();
        let pools = health["pools"].as_array().unwrap();
        let pool = pools.iter().find(|pool| pool["name"] == "paused").unwrap();
        let age = pool["oldest_queued_seconds"].as_f64().unwrap();
        assert!(age < 3_600.0, "{age}");
        check(pool["queued"] == 1, || health.to_string())
    })
    .await;
}
