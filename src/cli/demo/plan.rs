//! What is submitted, and what has to come back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::files;
use crate::cli::child::{Result, span};
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::{
    BatchSubmitTasksRequest, Payload, Priority, RetryPolicy, StopMethod, SubmitTaskRequest, payload,
};

/// The server's configuration: built-ins in the first pool, programs in the second.
pub const CONFIG: &str = r#"
[log]
filter = "warn"

[[pool]]
name = "default"

[[pool]]
name = "processes"
size = 4

[[handler]]
name = "count"
description = "Counts lines and bytes of a file."
runner = "process"
argv = ["wc", "-lc"]
accepts_args = true
pool = "processes"

[[handler]]
name = "checksum"
description = "CRC of a file."
runner = "process"
argv = ["cksum"]
accepts_args = true
pool = "processes"

[[handler]]
name = "exit-3"
description = "Says why on stderr and fails."
runner = "process"
argv = ["/bin/sh", "-c", "echo the shaft is broken >&2; exit 3"]
pool = "processes"

[[handler]]
name = "sleep"
runner = "process"
argv = ["sleep", "600"]
pool = "processes"
"#;

/// Computing tasks of the batch.
const COMPUTE_TASKS: u64 = 200;
/// What the sums count up to at most is a hundred of these.
const SUM_STEP: u64 = 800_000;
/// What the primes count up to at most is a hundred of these.
const PRIME_STEP: u64 = 120_011;
/// Delay before the failing task is tried again.
pub const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Attempts of the failing task.
pub const ATTEMPTS: i32 = 2;

/// Everything that is submitted.
pub struct Plan {
    /// In the order of the submission.
    pub tasks: Vec<Planned>,
}

/// One task and its right end.
pub struct Planned {
    /// The submission.
    pub request: SubmitTaskRequest,
    /// The right end.
    pub end: End,
    /// Its kind, for people.
    pub kind: &'static str,
}

/// How a task has to end.
pub enum End {
    /// COMPLETED with this JSON.
    Json(Value),
    /// COMPLETED with two numbers and then this path.
    Numbers([u64; 2]),
    /// FAILED with this exit code after all attempts.
    Exit(i32),
    /// CANCELLED while it was running, by this means.
    Stopped(StopMethod),
}

impl Planned {
    /// Whether it is cancelled as soon as it runs.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.end, End::Stopped(_))
    }
}

impl Plan {
    /// The plan over these files; the right results are computed here.
    pub fn new(files: &[PathBuf]) -> Self {
        let mut tasks = computed();
        tasks.extend(expressions());
        for path in files {
            tasks.extend(over_file("count lines", "count", path, files::lines_and_bytes(path)));
            tasks.extend(over_file("checksum", "checksum", path, files::checksum_and_bytes(path)));
        }
        tasks.push(Planned { request: failing(), end: End::Exit(3), kind: "fails twice" });
        // CRITICAL, so that they are really running while the others are under way.
        let spinning = urgent(compute(&json!(1_000_000_000_000_u64)));
        tasks.push(Planned { request: spinning, end: End::Stopped(StopMethod::Token), kind: "cancel compute" });
        let sleeping = urgent(SubmitTaskRequest { handler: "sleep".to_owned(), ..SubmitTaskRequest::default() });
        tasks.push(Planned { request: sleeping, end: End::Stopped(StopMethod::SignalTerm), kind: "cancel process" });
        Self { tasks }
    }
}

/// Submits everything in one batch, so that priority alone decides the order. Answers the ids.
pub async fn submit(client: &mut TaskServiceClient<Channel>, plan: &Plan) -> Result<Vec<String>> {
    let tasks = plan.tasks.iter().map(|planned| planned.request.clone()).collect();
    let request = BatchSubmitTasksRequest { tasks, batch_id: "demo".to_owned() };
    let answer = client.batch_submit_tasks(request).await?.into_inner();
    if answer.task_ids.len() != plan.tasks.len() {
        return Err(format!("{} tasks were sent, {} accepted", plan.tasks.len(), answer.task_ids.len()).into());
    }
    Ok(answer.task_ids)
}

/// Sums and prime counts of all priorities.
fn computed() -> Vec<Planned> {
    let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Critical];
    let primes = Primes::up_to(COMPUTE_TASKS / 2 * PRIME_STEP);
    let one = |index: u64| {
        let (kind, op, n, value) = if index.is_multiple_of(2) {
            let n = (index + 1) * SUM_STEP / 2;
            ("sum", "sum", n, n * (n - 1) / 2)
        } else {
            let n = index.div_ceil(2) * PRIME_STEP;
            ("count primes", "primes", n, primes.count(n))
        };
        let request = SubmitTaskRequest {
            priority: priorities[usize::try_from(index / 2 % 4).unwrap_or_default()].into(),
            display_name: format!("{op} {n}"),
            ..compute(&json!({ "op": op, "n": n }))
        };
        Planned { request, end: End::Json(json!({ "op": op, "n": n, "value": value })), kind }
    };
    (0..COMPUTE_TASKS).map(one).collect()
}

/// Expressions over variables, with their values by our own hands.
fn expressions() -> Vec<Planned> {
    let mut tasks = Vec::new();
    for seed in 1..=8_i64 {
        let numbers: Vec<i64> = (1..=20).map(|step| step * seed % 17).collect();
        let large: Vec<i64> = numbers.iter().copied().filter(|number| *number > 8).collect();
        let name = format!("shaft-{seed}");
        let greeting = format!("hello {name}");
        let cases = [
            ("numbers.filter(n, n > 8)", json!({ "numbers": numbers }), json!(large)),
            ("numbers.exists(n, n == 16) && size(numbers) == 20", json!({ "numbers": numbers }), {
                json!(numbers.contains(&16))
            }),
            ("a * b - a % b", json!({ "a": 1_000 + seed, "b": seed }), {
                json!((1_000 + seed) * seed - (1_000 + seed) % seed)
            }),
            ("'hello ' + worker.name", json!({ "worker": { "name": name } }), json!(greeting)),
        ];
        for (expression, variables, value) in cases {
            let data = json!({ "expression": expression, "variables": variables });
            let request = SubmitTaskRequest { handler: "expression".to_owned(), ..with_json(&data) };
            tasks.push(Planned { request, end: End::Json(value), kind: "expression" });
        }
    }
    tasks
}

/// A program over one file; nothing when the file has gone.
fn over_file(kind: &'static str, handler: &str, path: &Path, numbers: Result<[u64; 2]>) -> Option<Planned> {
    let request = SubmitTaskRequest {
        handler: handler.to_owned(),
        args: vec![path.to_str()?.to_owned()],
        ..SubmitTaskRequest::default()
    };
    Some(Planned { request, end: End::Numbers(numbers.ok()?), kind })
}

fn failing() -> SubmitTaskRequest {
    let retry =
        RetryPolicy { max_attempts: ATTEMPTS, delay: span(RETRY_DELAY), jitter: Some(0.0), ..RetryPolicy::default() };
    urgent(SubmitTaskRequest { handler: "exit-3".to_owned(), retry: Some(retry), ..SubmitTaskRequest::default() })
}

fn urgent(request: SubmitTaskRequest) -> SubmitTaskRequest {
    SubmitTaskRequest { priority: Priority::Critical.into(), ..request }
}

fn compute(data: &Value) -> SubmitTaskRequest {
    SubmitTaskRequest { handler: "compute".to_owned(), ..with_json(data) }
}

fn with_json(data: &Value) -> SubmitTaskRequest {
    let payload = Payload {
        kind: Some(payload::Kind::Data(Bytes::from(data.to_string()))),
        content_type: "application/json".to_owned(),
    };
    SubmitTaskRequest { payload: Some(payload), ..SubmitTaskRequest::default() }
}

/// The primes up to a bound, by the plainest sieve: not the one that is checked with it.
struct Primes(Vec<u64>);

impl Primes {
    fn up_to(bound: u64) -> Self {
        let mut prime = vec![true; usize::try_from(bound).unwrap_or_default() + 1];
        let mut found = Vec::new();
        for number in 2..prime.len() {
            if prime[number] {
                found.push(number as u64);
                for multiple in (number * number..prime.len()).step_by(number) {
                    prime[multiple] = false;
                }
            }
        }
        Self(found)
    }

    fn count(&self, n: u64) -> u64 {
        self.0.partition_point(|prime| *prime <= n) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_sieve_counts_primes() {
        let primes = Primes::up_to(1_000_000);
        assert_eq!([1, 2, 10, 1_000, 1_000_000].map(|n| primes.count(n)), [0, 1, 4, 168, 78_498]);
    }

    #[test]
    fn the_plan_fits_in_one_batch_and_has_every_kind_of_end() {
        let plan = Plan::new(&[std::env::current_exe().unwrap()]);
        assert!(plan.tasks.len() < crate::model::limits::BATCH_TASKS_MAX);
        assert_eq!(plan.tasks.iter().filter(|task| task.is_cancelled()).count(), 2);
        assert!(plan.tasks.iter().any(|task| matches!(task.end, End::Exit(3))));
        assert!(plan.tasks.iter().any(|task| matches!(task.end, End::Numbers(_))));
    }
}
