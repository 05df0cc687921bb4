//! Prints tasks, their events and their output.

use crate::cli::error::Exit;
use crate::cli::printer::Printer;
use crate::cli::view::{self, Cell, Text, View};
use crate::cli::{format, output, terminal};
use crate::proto::v1::{self, payload::Kind};

use super::limit;

/// Every field of a task that has a value, one per line.
pub fn details(task: &v1::Task, view: &View) -> Text {
    let labels = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
    let run_time = task.resource_usage.as_ref().map(|usage| format::duration(usage.run_time.as_ref()));
    let is_waiting = task.state() == v1::TaskState::Waiting;
    let parents = task.dependencies.as_ref();
    let held_by = limit::hold(task.limit_hold.as_ref(), view);
    let fields = view::fields(
        view,
        &[
            ("id", task.task_id.as_str().into()),
            ("state", Cell::state(task.state)),
            ("handler", task.handler.as_str().into()),
            ("pool", task.pool.as_str().into()),
            ("priority", format::priority(task.priority).into()),
            ("name", task.display_name.as_str().into()),
            ("labels", labels.into()),
            ("batch", task.batch_id.as_str().into()),
            ("retry of", task.retry_of.as_str().into()),
            ("parents", parents.map(parent_ids).unwrap_or_default().into()),
            (
                "on failure",
                parents.map(|parents| format::on_parent_failure(parents.on_parent_failure)).unwrap_or_default().into(),
            ),
            ("waits for", parents.map(waits_for).unwrap_or_default().into()),
            ("limits", limit::names(&task.limits).into()),
            ("unique key", task.unique_key.as_str().into()),
            ("fairness key", task.fairness_key.as_str().into()),
            ("attempt", Cell::number(task.attempt)),
            ("timeout", format::duration(task.timeout.as_ref()).into()),
            ("submitted", view.time(task.submitted_at.as_ref())),
            ("eligible", view.time(task.eligible_at.as_ref().filter(|_| is_waiting && held_by.is_empty()))),
            ("held by", held_by.as_str().into()),
            ("expires", view.time(task.expires_at.as_ref().filter(|_| task.started_at.is_none()))),
            ("started", view.time(task.started_at.as_ref())),
            ("finished", view.time(task.finished_at.as_ref())),
            ("run time", run_time.unwrap_or_default().into()),
            ("progress", progress(task).into()),
            ("worker", task.worker.as_str().into()),
            ("failure", format::failure(task.failure.as_ref()).into()),
            ("artifacts", artifacts(task).into()),
            ("cancelled by", task.cancel.as_ref().map(cancelled_by).unwrap_or_default().into()),
        ],
    );
    let result = data_of(task.result.as_ref()).unwrap_or_default();
    let output = task.output.clone().unwrap_or_default();
    // The result of a program is what it has written to stdout, and the detail of its failure the end of stderr.
    let stdout = output.stdout.filter(|stdout| !is_all_of(result, stdout, task.stdout_bytes));
    let detail = task.failure.as_ref().map_or("", |failure| &failure.detail);
    let detail = if output.stderr.as_ref().is_some_and(|stderr| ends_with(stderr, detail)) { "" } else { detail };
    fields
        .and(&view::block("detail", detail))
        .and(&view::block("result", &terminal::bytes(result)))
        .and(&view::block("stdout", &stdout.map(|stdout| stdout.to_text()).unwrap_or_default()))
        .and(&view::block("stderr", &output.stderr.map(|stderr| stderr.to_text()).unwrap_or_default()))
}

fn is_all_of(result: &[u8], stdout: &v1::StreamExcerpt, stdout_bytes: i64) -> bool {
    let has_same_length = i64::try_from(result.len()).is_ok_and(|bytes| bytes == stdout_bytes);
    has_same_length && String::from_utf8_lossy(result).starts_with(&stdout.head)
}

fn ends_with(stream: &v1::StreamExcerpt, detail: &str) -> bool {
    let end = if stream.omitted_bytes == 0 { &stream.head } else { &stream.tail };
    end.trim_end().ends_with(detail.trim_end())
}

fn artifacts(task: &v1::Task) -> String {
    let shown: Vec<_> = task.artifacts.iter().take(SHOWN).map(|artifact| &*artifact.name).collect();
    and_others(shown.join(", "), task.artifacts.len() - shown.len())
}

/// IDs or names that a line shows.
const SHOWN: usize = 20;

fn parent_ids(dependencies: &v1::TaskDependencies) -> String {
    let shown = dependencies.parent_ids.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
    and_others(shown.join(" "), dependencies.parent_ids.len() - shown.len())
}

/// The parents that have not ended.
fn waits_for(dependencies: &v1::TaskDependencies) -> String {
    let (count, shown) = (dependencies.unfinished_parents, &dependencies.unfinished_parent_ids);
    if count == 0 {
        return String::new();
    }
    let others = usize::try_from(count).unwrap_or(0).saturating_sub(shown.len());
    let noun = if count == 1 { "parent" } else { "parents" };
    and_others(format!("{count} {noun}: {}", shown.join(" ")), others)
}

fn and_others(shown: String, others: usize) -> String {
    if others == 0 { shown } else { format!("{shown} and {others} others") }
}

fn progress(task: &v1::Task) -> String {
    let percent = if task.progress > 0.0 { format!("{:.0}% ", 100.0 * task.progress) } else { String::new() };
    let shown = format!("{percent}{}", task.progress_note);
    if task.state() == v1::TaskState::Running { shown.trim_end().to_owned() } else { String::new() }
}

fn cancelled_by(cancel: &v1::CancelReceipt) -> String {
    let reason = if cancel.reason.is_empty() { String::new() } else { format!(": {}", cancel.reason) };
    format!("{}{reason}", cancel.requested_by)
}

/// One line: revision, task, state, and what is special about the event.
pub fn event(event: &v1::TaskEvent, view: &View) -> Text {
    let state = Cell::state(event.state);
    let state = view.paint(&state.text, state.color);
    let mut line = format!("{:>8} {} {state}", event.revision, terminal::line(&event.task_id));
    let stopping = event.cancel.as_ref().is_some_and(|cancel| cancel.stopped_at.is_none());
    let stopping = if stopping { "asked to stop" } else { "" };
    let deleted = if event.deleted { "deleted" } else { "" };
    let updated = if event.updated { "updated" } else { "" };
    let failure = format::failure(event.failure.as_ref());
    for extra in [&event.worker, &*failure, stopping, updated, deleted, &held_by(event, view)] {
        if !extra.is_empty() {
            line = format!("{line} {}", terminal::line(extra));
        }
    }
    Text::from_safe(line)
}

/// Why a WAITING task waits.
fn held_by(event: &v1::TaskEvent, view: &View) -> String {
    let until = |text: &str| match &event.not_before {
        Some(at) => format!("{text} until {}", view.time(Some(at)).text),
        None => text.to_owned(),
    };
    let texts = event.holds().map(|hold| match hold {
        v1::Hold::Delay => until("delayed"),
        v1::Hold::BackOff => until("waits for its next attempt"),
        v1::Hold::Parents => "waits for parents".to_owned(),
        v1::Hold::Limit => limit::hold(event.limit_hold.as_ref(), view),
        v1::Hold::Unspecified => String::new(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// Prints the result, if the task has completed with one; as JSON, the task. What is not a terminal gets exactly the bytes of
/// the result. Returns the exit code for the state.
pub fn result(task: &v1::Task, printer: Printer) -> Exit {
    let exit = exit_of(task.state);
    if printer.is_json() {
        printer.print(task, |_| Text::default());
    } else if let Some(data) = data_of(task.result.as_ref()).filter(|_| exit == Exit::Success) {
        if output::is_terminal() {
            let text = terminal::bytes(data);
            output::stdout_text(text.strip_suffix('\n').unwrap_or(&text));
        } else {
            output::stdout_bytes(data);
        }
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
