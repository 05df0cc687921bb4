//! Prints tasks, their events and their output.

use crate::cli::error::Exit;
use crate::cli::format::{self, Printer};
use crate::cli::{output, terminal};
use crate::proto::v1::{self, payload::Kind};

/// Every field of a task, one per line.
pub fn details(task: &v1::Task) -> String {
    let labels = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
    let run_time = task.resource_usage.as_ref().map(|usage| format::duration(usage.run_time.as_ref()));
    let fields = format::fields(&[
        ("id", task.task_id.clone()),
        ("state", format::task_state(task.state)),
        ("handler", task.handler.clone()),
        ("pool", task.pool.clone()),
        ("priority", format::priority(task.priority)),
        ("name", task.display_name.clone()),
        ("labels", labels),
        ("batch", task.batch_id.clone()),
        ("attempt", task.attempt.to_string()),
        ("submitted", format::timestamp(task.submitted_at.as_ref())),
        ("started", format::timestamp(task.started_at.as_ref())),
        ("finished", format::timestamp(task.finished_at.as_ref())),
        ("run time", run_time.unwrap_or_default()),
        ("worker", task.worker.clone()),
        ("failure", format::failure(task.failure.as_ref())),
    ]);
    let detail = task.failure.as_ref().map_or("", |failure| &failure.detail);
    let result = data_of(task.result.as_ref()).map(terminal::bytes).unwrap_or_default();
    format!("{fields}{}{}", format::block("detail", detail), format::block("result", &result))
}

/// One line: revision, task, state, and what is special about the event.
pub fn event(event: &v1::TaskEvent) -> String {
    let id = terminal::line(&event.task_id);
    let mut line = format!("{:>8} {id} {}", event.revision, format::task_state(event.state));
    let stopping = event.cancel.as_ref().is_some_and(|cancel| cancel.stopped_at.is_none());
    let stopping = if stopping { "asked to stop" } else { "" };
    for extra in [event.worker.clone(), format::failure(event.failure.as_ref()), stopping.to_owned()] {
        if !extra.is_empty() {
            line = format!("{line} {}", terminal::line(&extra));
        }
    }
    if event.deleted { format!("{line} deleted") } else { line }
}

/// The state after a cancel: a running task has only been asked to stop.
pub fn cancel(response: &v1::CancelTaskResponse) -> String {
    let stopping = response.state == v1::TaskState::Running as i32;
    format!("{}{}", format::task_state(response.state), if stopping { ", asked to stop" } else { "" })
}

/// Prints the result, or the state and the failure of a task without a result; as JSON, the task. What is not a terminal
/// gets exactly the bytes of the result. Returns the exit code for the state.
pub fn result(task: &v1::Task, printer: Printer) -> Exit {
    let exit = exit_of(task.state);
    match data_of(task.result.as_ref()) {
        Some(data) if exit == Exit::Success && !printer.is_json() => {
            if output::is_terminal() {
                let text = terminal::bytes(data);
                output::stdout_text(text.strip_suffix('\n').unwrap_or(&text));
            } else {
                output::stdout_bytes(data);
            }
        }
        _ => printer.print(task, |task| {
            format!("{} {}", format::task_state(task.state), format::failure(task.failure.as_ref()))
        }),
    }
    exit
}

pub fn is_terminal(state: v1::TaskState) -> bool {
    matches!(state, v1::TaskState::Completed | v1::TaskState::Failed | v1::TaskState::Cancelled)
}

pub fn exit_of(state: i32) -> Exit {
    match v1::TaskState::try_from(state) {
        Ok(v1::TaskState::Completed) => Exit::Success,
        Ok(v1::TaskState::Failed) => Exit::TaskFailed,
        Ok(v1::TaskState::Cancelled) => Exit::TaskCancelled,
        _ => Exit::TaskNotFinished,
    }
}

fn data_of(payload: Option<&v1::Payload>) -> Option<&[u8]> {
    match payload?.kind.as_ref()? {
        Kind::Data(data) => Some(data),
        Kind::Json(_) => None,
    }
}
