//! Checks the results and the events of the demo.

use std::fmt;

use serde_json::Value;
use tonic::transport::Channel;

use super::event_log::{EventLog, is_terminal};
use super::plan::{ATTEMPTS, CANCEL_REASON, FAILURE_OUTPUT, Outcome, Plan, PlannedTask, RETRY_DELAY};
use crate::cli::format::task_state;
use crate::cli::server_process::Result;
use crate::cli::time::unix_micros;
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::{
    CancelReceipt, FailureReason, GetTaskRequest, OutputStream, ReadOutputRequest, StopMethod, Task, TaskEvent,
    TaskState, payload,
};

/// Maximum number of failed checks that are listed.
const LISTED_MAX: usize = 20;

/// Counts of passed checks by kind, and descriptions of the failed ones.
#[derive(Debug, Default)]
pub struct Checks {
    /// In the order of the first check of each kind.
    counts: Vec<Count>,
    failures: Vec<String>,
}

#[derive(Debug)]
struct Count {
    kind: &'static str,
    total: usize,
    passed: usize,
}

impl Checks {
    /// Adds a check. `describe` is called if it failed.
    pub fn add(&mut self, kind: &'static str, passed: bool, describe: impl FnOnce() -> String) {
        let index = self.counts.iter().position(|count| count.kind == kind).unwrap_or_else(|| {
            self.counts.push(Count { kind, total: 0, passed: 0 });
            self.counts.len() - 1
        });
        let count = &mut self.counts[index];
        count.total += 1;
        if passed {
            count.passed += 1;
        } else {
            self.failures.push(format!("{kind}: {}", describe()));
        }
    }

    pub fn all_passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.counts.iter().map(|count| count.kind.len()).max().unwrap_or_default();
        writeln!(f, "{:<width$}  {:>6}  {:>6}", "CHECK", "TOTAL", "PASSED")?;
        for Count { kind, total, passed } in &self.counts {
            let mark = if total == passed { "" } else { "  FAILED" };
            writeln!(f, "{kind:<width$}  {total:>6}  {passed:>6}{mark}")?;
        }
        for failure in self.failures.iter().take(LISTED_MAX) {
            writeln!(f, "failed: {failure}")?;
        }
        if self.failures.len() > LISTED_MAX {
            writeln!(f, "and {} more", self.failures.len() - LISTED_MAX)?;
        }
        Ok(())
    }
}

/// Gets every task and compares it with its expected outcome and with the last event of the watch.
pub async fn check_results(
    log: &EventLog,
    plan: &Plan,
    client: &mut TaskServiceClient<Channel>,
    checks: &mut Checks,
) -> Result<()> {
    let mut states = Vec::with_capacity(plan.tasks.len());
    for (index, planned) in plan.tasks.iter().enumerate() {
        let id = log.id(index);
        let request = GetTaskRequest { task_id: id.to_owned(), ..GetTaskRequest::default() };
        let task = client.get_task(request).await?.into_inner().task.ok_or("a response without a task")?;
        let result = compare_outcome(planned, &task);
        checks.add(planned.kind, result.is_ok(), || format!("{id}: {}", result.err().unwrap_or_default()));
        if let Outcome::ExitCode(_) = planned.expected {
            let stderr = stderr_of(client, id).await?;
            checks.add("stderr", stderr == FAILURE_OUTPUT, || format!("{id}: stderr is {stderr:?}"));
            let events = log.events_of(index);
            checks.add("retry delay", waited_for_retry(events), || format!("{id}: {events:#?}"));
        }
        states.push(task.state());
    }
    for (index, state) in states.into_iter().enumerate() {
        let last = log.events_of(index).last().map(TaskEvent::state);
        checks.add("last event", last == Some(state), || {
            format!("{}: is {}, but its last event is {last:?}", log.id(index), name(state))
        });
    }
    Ok(())
}

/// Returns how the task differs from the expected outcome.
fn compare_outcome(planned: &PlannedTask, task: &Task) -> Result<(), String> {
    let state = task.state();
    let expect = |expected: TaskState| match &task.failure {
        _ if state == expected => Ok(()),
        Some(failure) => Err(format!("is {}: {}", name(state), failure.message)),
        None => Err(format!("is {}", name(state))),
    };
    match &planned.expected {
        Outcome::Json(expected) => {
            expect(TaskState::Completed)?;
            let found: Value = serde_json::from_slice(result_of(task)).map_err(|error| error.to_string())?;
            equal(&found, expected)
        }
        Outcome::Numbers(expected) => {
            expect(TaskState::Completed)?;
            let text = String::from_utf8_lossy(result_of(task));
            let numbers: Vec<u64> = text.split_whitespace().take(2).filter_map(|word| word.parse().ok()).collect();
            let names_file = task.args.first().is_some_and(|path| text.trim_end().ends_with(path.as_str()));
            if names_file { equal(&numbers, &expected.to_vec()) } else { Err(format!("the result is {text:?}")) }
        }
        Outcome::ExitCode(code) => {
            expect(TaskState::Failed)?;
            let failure = task.failure.as_ref().ok_or("has no failure")?;
            equal(&failure.reason(), &FailureReason::HandlerError)?;
            equal(&failure.exit_code, &Some(*code))?;
            equal(&task.attempt, &ATTEMPTS)
        }
        Outcome::Stopped(method) => {
            expect(TaskState::Cancelled)?;
            let receipt = task.cancel.as_ref().ok_or("has no cancel receipt")?;
            equal(&receipt.method(), method)?;
            equal(&receipt.reason.as_str(), &CANCEL_REASON)?;
            let requested = unix_micros(receipt.requested_at.as_ref());
            let stopped = unix_micros(receipt.stopped_at.as_ref());
            let ordered = 0 < requested && requested <= stopped;
            if ordered { Ok(()) } else { Err(format!("requested at {requested}, stopped at {stopped}")) }
        }
    }
}

fn equal<T: PartialEq + fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
}

fn result_of(task: &Task) -> &[u8] {
    match task.result.as_ref().and_then(|result| result.kind.as_ref()) {
        Some(payload::Kind::Data(data)) => data,
        _ => &[],
    }
}

async fn stderr_of(client: &mut TaskServiceClient<Channel>, task_id: &str) -> Result<String> {
    let request = ReadOutputRequest {
        task_id: task_id.to_owned(),
        stream: OutputStream::Stderr.into(),
        ..ReadOutputRequest::default()
    };
    let mut pieces = client.read_output(request).await?.into_inner();
    let mut text = Vec::new();
    while let Some(piece) = pieces.message().await? {
        text.extend_from_slice(&piece.data);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether there were two attempts with a wait of at least the retry delay in between.
fn waited_for_retry(events: &[TaskEvent]) -> bool {
    let times = |state: TaskState| {
        let of_state = events.iter().filter(move |event| event.state() == state && event.cancel.is_none());
        of_state.map(|event| unix_micros(event.time.as_ref())).collect::<Vec<_>>()
    };
    let (starts, waits) = (times(TaskState::Running), times(TaskState::Waiting));
    let delay = i64::try_from(RETRY_DELAY.as_micros()).unwrap_or(i64::MAX);
    matches!((&starts[..], &waits[..]), ([_, second], [wait]) if second - wait >= delay)
}

/// Checks the order of the revisions and the state changes of each task.
pub fn check_events(log: &EventLog, checks: &mut Checks) {
    let increasing = log.revisions().windows(2).all(|pair| pair[0] < pair[1]);
    checks.add("event order", increasing, || "the revisions do not increase".to_owned());
    let unknown = log.unknown();
    checks.add("event order", unknown.is_empty(), || format!("events of unknown tasks: {unknown:?}"));
    for index in 0..log.task_count() {
        let result = check_states(log.events_of(index));
        checks.add("state changes", result.is_ok(), || {
            format!("{}: {}", log.id(index), result.err().unwrap_or_default())
        });
    }
}

/// Checks that each event follows from the one before it, and that only the last one is terminal.
fn check_states(events: &[TaskEvent]) -> Result<(), String> {
    let mut before = TaskState::Unspecified;
    for event in events {
        let state = event.state();
        if event.previous_state() != before {
            let previous = name(event.previous_state());
            let (state, before) = (name(state), name(before));
            return Err(format!("{state} after {before}, but the event's previous state is {previous}"));
        }
        let fits = match before {
            TaskState::Unspecified => matches!(state, TaskState::Queued | TaskState::Waiting),
            TaskState::Waiting => state == TaskState::Queued,
            TaskState::Queued => state == TaskState::Running,
            // RUNNING again: a cancel was requested.
            TaskState::Running => state != TaskState::Queued,
            _ => false,
        };
        if !fits {
            return Err(format!("{} after {}", name(state), name(before)));
        }
        before = state;
    }
    let stopped = events.last().and_then(|event| event.cancel.as_ref()).map(CancelReceipt::method);
    match before {
        state if !is_terminal(state) => Err(format!("ends with {}", name(state))),
        TaskState::Cancelled if matches!(stopped, None | Some(StopMethod::Unspecified)) => {
            Err("is cancelled without a receipt".to_owned())
        }
        _ => Ok(()),
    }
}

fn name(state: TaskState) -> String {
    task_state(state.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(from: TaskState, to: TaskState) -> TaskEvent {
        TaskEvent { state: to.into(), previous_state: from.into(), ..TaskEvent::default() }
    }

    #[test]
    fn each_state_follows_from_the_one_before_and_one_is_terminal() {
        use TaskState::{Completed, Queued, Running, Unspecified, Waiting};
        let good = [event(Unspecified, Queued), event(Queued, Running), event(Running, Completed)];
        assert_eq!(check_states(&good), Ok(()));
        assert!(check_states(&good[..2]).is_err_and(|why| why == "ends with RUNNING"));
        assert!(check_states(&good[1..]).is_err());
        let twice = [good.as_slice(), &[event(Completed, Waiting)]].concat();
        assert!(check_states(&twice).is_err_and(|why| why == "WAITING after COMPLETED"));
    }

    #[test]
    fn a_failed_check_is_listed() {
        let mut checks = Checks::default();
        checks.add("sum", true, String::new);
        assert!(checks.all_passed());
        checks.add("sum", false, || "41 instead of 42".to_owned());
        assert!(!checks.all_passed());
        assert!(checks.to_string().contains("failed: sum: 41 instead of 42"));
    }
}
