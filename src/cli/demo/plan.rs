//! The tasks of the demo and their expected results.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::files;
use crate::cli::server_process::Result;
use crate::cli::time::to_proto;
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::{
    BatchSubmitTasksRequest, Payload, Priority, RetryPolicy, StopMethod, SubmitTaskRequest, payload,
};

/// Configuration of the server: built-in handlers run in the first pool, processes in the second.
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
description = "Counts the lines and bytes of a file"
runner = "process"
argv = ["wc", "-lc"]
arg_pattern = "/.+"
pool = "processes"

[[handler]]
name = "checksum"
description = "Computes the CRC of a file"
runner = "process"
argv = ["cksum"]
arg_pattern = "/.+"
pool = "processes"

[[handler]]
name = "exit-3"
description = "Writes a message to stderr and fails"
runner = "process"
argv = ["/bin/sh", "-c", "echo this handler always fails >&2; exit 3"]
pool = "processes"

[[handler]]
name = "sleep"
runner = "process"
argv = ["sleep", "600"]
pool = "processes"
"#;

/// Sums and prime counts together.
const COMPUTE_TASKS: u64 = 200;
/// The sums have the bounds 1, 2, … 100 times this.
const SUM_STEP: u64 = 800_000;
/// The prime counts have the bounds 1, 2, … 100 times this.
const PRIME_STEP: u64 = 120_011;
/// Retry delay of the failing task.
pub const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Attempts of the failing task.
pub const ATTEMPTS: i32 = 2;
/// What the failing task writes to stderr.
pub const FAILURE_OUTPUT: &str = "this handler always fails\n";
/// Reason that the demo gives when it cancels a task.
pub const CANCEL_REASON: &str = "the demo cancels this task";

pub struct Plan {
    /// In the order of the submission.
    pub tasks: Vec<PlannedTask>,
}

pub struct PlannedTask {
    pub request: SubmitTaskRequest,
    pub expected: Outcome,
    /// Description for people.
    pub kind: &'static str,
}

/// How a task must end.
pub enum Outcome {
    /// COMPLETED with this JSON.
    Json(Value),
    /// COMPLETED with a line of these two numbers and the path of the file.
    Numbers([u64; 2]),
    /// FAILED with this exit code after all attempts.
    ExitCode(i32),
    /// CANCELLED while running, stopped by this method.
    Stopped(StopMethod),
}

impl PlannedTask {
    /// Whether the demo cancels the task when it starts.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.expected, Outcome::Stopped(_))
    }

    /// Whether the task must complete with a result.
    pub fn completes(&self) -> bool {
        matches!(self.expected, Outcome::Json(_) | Outcome::Numbers(_))
    }
}

impl Plan {
    /// Plans the tasks and computes their expected results.
    pub fn new(files: &[PathBuf]) -> Self {
        let mut tasks = computations();
        tasks.extend(expressions());
        for path in files {
            tasks.extend(file_task("count the lines of a file (process)", "count", path, files::lines_and_bytes(path)));
            tasks.extend(file_task(
                "compute the checksum of a file (process)",
                "checksum",
                path,
                files::checksum_and_bytes(path),
            ));
        }
        tasks.push(PlannedTask { request: failing(), expected: Outcome::ExitCode(3), kind: "fail twice (process)" });
        // CRITICAL, so that they run while other tasks do.
        let spinning = urgent(compute(&json!(1_000_000_000_000_u64)));
        let expected = Outcome::Stopped(StopMethod::Token);
        tasks.push(PlannedTask { request: spinning, expected, kind: "cancel a running computation" });
        let sleeping = urgent(SubmitTaskRequest { handler: "sleep".to_owned(), ..SubmitTaskRequest::default() });
        let expected = Outcome::Stopped(StopMethod::SignalTerm);
        tasks.push(PlannedTask { request: sleeping, expected, kind: "cancel a running process" });
        Self { tasks }
    }

    /// The number of tasks of each kind, in the order of the submission.
    pub fn counts(&self) -> Vec<(usize, &'static str)> {
        let mut counts: Vec<(usize, &'static str)> = Vec::new();
        for task in &self.tasks {
            match counts.iter_mut().find(|(_, kind)| *kind == task.kind) {
                Some((count, _)) => *count += 1,
                None => counts.push((1, task.kind)),
            }
        }
        counts
    }
}

/// Submits all tasks in one batch, so that only their priorities decide the order. Returns the IDs.
pub async fn submit(client: &mut TaskServiceClient<Channel>, plan: &Plan) -> Result<Vec<String>> {
    let tasks = plan.tasks.iter().map(|planned| planned.request.clone()).collect();
    let request = BatchSubmitTasksRequest { tasks, batch_id: "demo".to_owned() };
    let response = client.batch_submit_tasks(request).await?.into_inner();
    if response.task_ids.len() != plan.tasks.len() {
        return Err(format!("{} tasks were sent, {} accepted", plan.tasks.len(), response.task_ids.len()).into());
    }
    Ok(response.task_ids)
}

/// Sums and prime counts with all priorities.
fn computations() -> Vec<PlannedTask> {
    let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Critical];
    let primes = Primes::up_to(COMPUTE_TASKS / 2 * PRIME_STEP);
    let one = |index: u64| {
        let (kind, op, n, value) = if index.is_multiple_of(2) {
            let n = (index + 1) * SUM_STEP / 2;
            ("compute a sum", "sum", n, n * (n - 1) / 2)
        } else {
            let n = index.div_ceil(2) * PRIME_STEP;
            ("count primes", "primes", n, primes.count(n))
        };
        let request = SubmitTaskRequest {
            priority: priorities[usize::try_from(index / 2 % 4).unwrap_or_default()].into(),
            display_name: format!("{op} {n}"),
            ..compute(&json!({ "op": op, "n": n }))
        };
        PlannedTask { request, expected: Outcome::Json(json!({ "op": op, "n": n, "value": value })), kind }
    };
    (0..COMPUTE_TASKS).map(one).collect()
}

/// CEL expressions over variables.
fn expressions() -> Vec<PlannedTask> {
    let mut tasks = Vec::new();
    for seed in 1..=8_i64 {
        let numbers: Vec<i64> = (1..=20).map(|step| step * seed % 17).collect();
        let large: Vec<i64> = numbers.iter().copied().filter(|number| *number > 8).collect();
        let name = format!("worker-{seed}");
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
            tasks.push(PlannedTask { request, expected: Outcome::Json(value), kind: "evaluate an expression" });
        }
    }
    tasks
}

/// A task that runs a program on a file; `None` if the file could not be read.
fn file_task(kind: &'static str, handler: &str, path: &Path, numbers: Result<[u64; 2]>) -> Option<PlannedTask> {
    let request = SubmitTaskRequest {
        handler: handler.to_owned(),
        args: vec![path.to_str()?.to_owned()],
        ..SubmitTaskRequest::default()
    };
    Some(PlannedTask { request, expected: Outcome::Numbers(numbers.ok()?), kind })
}

fn failing() -> SubmitTaskRequest {
    let retry = RetryPolicy {
        max_attempts: ATTEMPTS,
        delay: Some(to_proto(RETRY_DELAY)),
        jitter: Some(0.0),
        ..RetryPolicy::default()
    };
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

/// The primes up to a bound, by a simple sieve that is independent of the handler's implementation.
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
    fn the_sieve_counts_primes() {
        let primes = Primes::up_to(1_000_000);
        assert_eq!([1, 2, 10, 1_000, 1_000_000].map(|n| primes.count(n)), [0, 1, 4, 168, 78_498]);
    }

    #[test]
    fn the_plan_fits_in_one_batch_and_has_every_outcome() {
        let plan = Plan::new(&[std::env::current_exe().unwrap()]);
        assert!(plan.tasks.len() < crate::model::limits::BATCH_TASKS_MAX);
        assert_eq!(plan.tasks.iter().filter(|task| task.is_cancelled()).count(), 2);
        assert!(plan.tasks.iter().any(|task| matches!(task.expected, Outcome::ExitCode(3))));
        assert!(plan.tasks.iter().any(|task| matches!(task.expected, Outcome::Numbers(_))));
    }
}
