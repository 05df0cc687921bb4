//! Holds what came back against what is right.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use tonic::transport::Channel;

use super::CANCEL_REASON;
use super::plan::{ATTEMPTS, End, Plan, Planned, RETRY_DELAY};
use super::screen::short;
use super::story::{Story, is_terminal};
use crate::cli::child::{Result, micros};
use crate::proto::v1::task_service_client::TaskServiceClient;
use crate::proto::v1::{
    CancelReceipt, FailureReason, GetTaskRequest, OutputStream, ReadOutputRequest, StopMethod, Task, TaskEvent,
    TaskState, payload,
};

/// Wrong answers that are shown; there may be one for each task.
const SHOWN_MAX: usize = 20;

/// What was checked and what was wrong.
#[derive(Debug, Default)]
pub struct Verdict {
    checks: BTreeMap<&'static str, [usize; 2]>,
    wrong: Vec<String>,
}

impl Verdict {
    /// Notes one check of a kind; the words are asked for when it is wrong.
    pub fn check(&mut self, kind: &'static str, right: bool, words: impl FnOnce() -> String) {
        let [all, good] = self.checks.entry(kind).or_default();
        *all += 1;
        if right {
            *good += 1;
        } else {
            self.wrong.push(format!("{kind}: {}", words()));
        }
    }

    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<16} {:>7} {:>7}", "checked", "checks", "right")?;
        for (kind, [all, good]) in &self.checks {
            let mark = if all == good { "" } else { "  WRONG" };
            writeln!(f, "{kind:<16} {all:>7} {good:>7}{mark}")?;
        }
        for wrong in self.wrong.iter().take(SHOWN_MAX) {
            writeln!(f, "wrong: {wrong}")?;
        }
        if self.wrong.len() > SHOWN_MAX {
            writeln!(f, "and {} more", self.wrong.len() - SHOWN_MAX)?;
        }
        Ok(())
    }
}

/// Asks for every task and checks its end.
pub async fn results(
    story: &Story,
    plan: &Plan,
    client: &mut TaskServiceClient<Channel>,
    verdict: &mut Verdict,
) -> Result<()> {
    for (number, planned) in plan.tasks.iter().enumerate() {
        let task_id = story.id(number).to_owned();
        let request = GetTaskRequest { task_id: task_id.clone(), include_payload: false };
        let task = client.get_task(request).await?.into_inner().task.ok_or("an answer without its task")?;
        let found = end_of(planned, &task);
        verdict.check(planned.kind, found.is_ok(), || format!("{task_id}: {}", found.err().unwrap_or_default()));
        let told = story.of(number).last().map(TaskEvent::state);
        verdict.check("last event", told == Some(task.state()), || format!("{task_id}: the watch ended with {told:?}"));
        if let End::Exit(_) = planned.end {
            let stderr = stderr_of(client, &task_id).await?;
            verdict.check("output", stderr == "the shaft is broken\n", || format!("{task_id}: stderr is {stderr:?}"));
            verdict.check("retry", waited(story.of(number)), || format!("{task_id}: {:#?}", story.of(number)));
        }
    }
    Ok(())
}

/// Whether a task ended as planned, or what is wrong with it.
fn end_of(planned: &Planned, task: &Task) -> Result<(), String> {
    let state = task.state();
    let expect = |wanted: TaskState| match &task.failure {
        _ if state == wanted => Ok(()),
        Some(failure) => Err(format!("is {}: {}", short(state), failure.message)),
        None => Err(format!("is {}", short(state))),
    };
    match &planned.end {
        End::Json(wanted) => {
            expect(TaskState::Completed)?;
            let found: Value = serde_json::from_slice(result_of(task)).map_err(|error| error.to_string())?;
            equal(&found, wanted)
        }
        End::Numbers(wanted) => {
            expect(TaskState::Completed)?;
            let text = String::from_utf8_lossy(result_of(task));
            let numbers: Vec<u64> = text.split_whitespace().take(2).filter_map(|word| word.parse().ok()).collect();
            let names_file = task.args.first().is_some_and(|path| text.trim_end().ends_with(path.as_str()));
            if names_file { equal(&numbers, &wanted.to_vec()) } else { Err(format!("says {text:?}")) }
        }
        End::Exit(code) => {
            expect(TaskState::Failed)?;
            let failure = task.failure.as_ref().ok_or("has no failure")?;
            equal(&failure.reason(), &FailureReason::HandlerError)?;
            equal(&failure.exit_code, &Some(*code))?;
            equal(&task.attempt, &ATTEMPTS)
        }
        End::Stopped(method) => {
            expect(TaskState::Cancelled)?;
            let receipt = task.cancel.as_ref().ok_or("has no receipt")?;
            equal(&receipt.method(), method)?;
            equal(&receipt.reason.as_str(), &CANCEL_REASON)?;
            let (asked, stopped) = (micros(receipt.requested_at.as_ref()), micros(receipt.stopped_at.as_ref()));
            if 0 < asked && asked <= stopped { Ok(()) } else { Err(format!("asked {asked}, stopped {stopped}")) }
        }
    }
}

fn equal<T: PartialEq + fmt::Debug>(found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found:?} instead of {wanted:?}")) }
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

/// Whether there were two attempts with one wait of at least the delay in between.
fn waited(events: &[TaskEvent]) -> bool {
    let times = |state: TaskState| {
        let of_state = events.iter().filter(move |event| event.state() == state && event.cancel.is_none());
        of_state.map(|event| micros(event.time.as_ref())).collect::<Vec<_>>()
    };
    let (starts, waits) = (times(TaskState::Running), times(TaskState::Waiting));
    let delay = i64::try_from(RETRY_DELAY.as_micros()).unwrap_or(i64::MAX);
    matches!((&starts[..], &waits[..]), ([_, second], [wait]) if second - wait >= delay)
}

/// Checks what the watch told: the sequence as a whole, and the steps of each task.
pub fn story(story: &Story, verdict: &mut Verdict) {
    let increasing = story.revisions().windows(2).all(|pair| pair[0] < pair[1]);
    verdict.check("watch order", increasing, || "revisions did not increase".to_owned());
    let strangers = story.strangers();
    verdict.check("watch order", strangers.is_empty(), || format!("events of others: {strangers:?}"));
    for number in 0..story.tasks() {
        let found = steps(story.of(number));
        verdict.check("watch steps", found.is_ok(), || {
            format!("{}: {}", story.id(number), found.err().unwrap_or_default())
        });
    }
}

/// Whether each event follows from the one before it, and exactly the last one is terminal.
fn steps(events: &[TaskEvent]) -> Result<(), String> {
    let mut before = TaskState::Unspecified;
    for event in events {
        let state = event.state();
        if event.previous_state() != before {
            let from = short(event.previous_state());
            return Err(format!("{} after {}, but the event says after {from}", short(state), short(before)));
        }
        let fits = match before {
            TaskState::Unspecified => matches!(state, TaskState::Queued | TaskState::Waiting),
            TaskState::Waiting => state == TaskState::Queued,
            TaskState::Queued => state == TaskState::Running,
            // RUNNING again: a cancel was asked for.
            TaskState::Running => state != TaskState::Queued,
            _ => false,
        };
        if !fits {
            return Err(format!("{} after {}", short(state), short(before)));
        }
        before = state;
    }
    let stopped = events.last().and_then(|event| event.cancel.as_ref()).map(CancelReceipt::method);
    match before {
        state if !is_terminal(state) => Err(format!("ends with {}", short(state))),
        TaskState::Cancelled if matches!(stopped, None | Some(StopMethod::Unspecified)) => {
            Err("is cancelled without a receipt".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(from: TaskState, to: TaskState) -> TaskEvent {
        TaskEvent { state: to.into(), previous_state: from.into(), ..TaskEvent::default() }
    }

    #[test]
    fn steps_follow_from_each_other_and_end_once() {
        use TaskState::{Completed, Queued, Running, Unspecified, Waiting};
        let good = [event(Unspecified, Queued), event(Queued, Running), event(Running, Completed)];
        assert_eq!(steps(&good), Ok(()));
        assert!(steps(&good[..2]).is_err_and(|why| why == "ends with RUNNING"));
        assert!(steps(&good[1..]).is_err());
        let twice = [good.as_slice(), &[event(Completed, Waiting)]].concat();
        assert!(steps(&twice).is_err_and(|why| why == "WAITING after COMPLETED"));
    }

    #[test]
    fn one_wrong_check_spoils_the_verdict_and_is_shown() {
        let mut verdict = Verdict::default();
        verdict.check("sum", true, String::new);
        assert!(verdict.is_clean());
        verdict.check("sum", false, || "41 instead of 42".to_owned());
        assert!(!verdict.is_clean());
        assert!(verdict.to_string().contains("wrong: sum: 41 instead of 42"));
    }
}
