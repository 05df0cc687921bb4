//! Plain routes for tasks.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::api::convert::InvalidFields;
use crate::api::status::into_status;
use crate::model::limits;
use crate::proto::json::is_json;
use crate::proto::v1::{self, payload::Kind};

use super::super::loopback::LoopbackClient;
use super::super::response::JSON;
use super::call::{Call, number};

const TEXT: &str = "text/plain; charset=utf-8";

#[derive(Deserialize)]
struct Submit {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    param: Value,
    priority: Option<Value>,
    #[serde(default)]
    label: String,
}

pub async fn submit(call: Call) -> Result<Value, Status> {
    let exact = call.params.exact("param");
    let Submit { r#type, id, param, priority, label } = call.params.parse()?;
    let mut invalid = InvalidFields::default();
    if r#type.is_empty() {
        invalid.add("type", "must not be empty; it is the name of a handler");
    }
    invalid.check_length("label", label.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    invalid.check().map_err(into_status)?;
    let priority = number("priority", priority.as_ref(), 0..=3)?;
    let request = v1::SubmitTaskRequest {
        handler: r#type,
        task_id: id,
        payload: payload(param, exact),
        priority: priority.map_or(v1::Priority::Unspecified, priority_from_number).into(),
        display_name: label,
        ..v1::SubmitTaskRequest::default()
    };
    let response: v1::SubmitTaskResponse = call.client.rpc("/lineshaft.v1.TaskService/SubmitTask", &request).await?;
    Ok(json!({
        "success": true,
        "task_id": response.task_id,
        "state": state_name(response.state()),
        "revision": response.revision,
    }))
}

/// A string that is valid JSON is used as JSON, because a form has only strings. `exact` is the text of another value.
fn payload(param: Value, exact: Option<Vec<u8>>) -> Option<v1::Payload> {
    let (data, content_type) = match param {
        Value::Null => return None,
        Value::String(text) if is_json(&text) => (text.into_bytes(), JSON),
        Value::String(text) => (text.into_bytes(), TEXT),
        value => (exact.unwrap_or_else(|| value.to_string().into_bytes()), JSON),
    };
    Some(v1::Payload { kind: Some(Kind::Data(data.into())), content_type: content_type.to_owned() })
}

fn priority_from_number(number: u64) -> v1::Priority {
    match number {
        0 => v1::Priority::Critical,
        1 => v1::Priority::High,
        2 => v1::Priority::Normal,
        _ => v1::Priority::Low,
    }
}

/// Returns the number of a priority in the plain routes; 0 is the highest priority.
pub const fn priority_number(priority: v1::Priority) -> u8 {
    match priority {
        v1::Priority::Critical => 0,
        v1::Priority::High => 1,
        v1::Priority::Normal | v1::Priority::Unspecified => 2,
        v1::Priority::Low => 3,
    }
}

#[derive(Deserialize)]
struct Get {
    wait: Option<Value>,
}

pub async fn get(call: Call) -> Result<String, Status> {
    let Get { wait } = call.params.parse()?;
    let wait = number("wait", wait.as_ref(), 0..=limits::WAIT_MAX.as_secs())?;
    let mut waited = None;
    if let Some(seconds) = wait.and_then(|wait| i64::try_from(wait).ok()) {
        let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = v1::WaitTaskRequest { task_id: call.id.clone(), timeout };
        let response: v1::WaitTaskResponse = call.client.rpc("/lineshaft.v1.TaskService/WaitTask", &request).await?;
        waited = response.task;
    }
    // WaitTask returns neither the payload nor the output.
    let request = v1::GetTaskRequest { task_id: call.id, include_payload: true, include_output: true };
    let response: Result<v1::GetTaskResponse, Status> =
        call.client.rpc("/lineshaft.v1.TaskService/GetTask", &request).await;
    let task = match (response, waited) {
        (Ok(response), _) => response.task,
        // The task was deleted after its end.
        (Err(error), Some(waited)) if error.code() == Code::NotFound => Some(waited),
        (Err(error), _) => return Err(error),
    };
    let task = task.unwrap_or_default();
    let written = task.output.clone().unwrap_or_default();
    let output = written.stdout.map(|stdout| stdout.to_text());
    let error = written.stderr.map(|stderr| stderr.to_text());
    Ok(to_json(&WithOutput { task: TaskJson::from(&task), output, error }))
}

#[derive(Serialize)]
struct WithOutput<'a> {
    #[serde(flatten)]
    task: TaskJson<'a>,
    output: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    state: String,
    #[serde(default, rename = "type")]
    handler: String,
    limit: Option<Value>,
    #[serde(default)]
    page: String,
}

#[derive(Serialize)]
struct Listed<'a> {
    tasks: Vec<TaskJson<'a>>,
    next_page: Option<&'a str>,
    revision: u64,
}

pub async fn list(call: Call) -> Result<String, Status> {
    let List { state, handler, limit, page } = call.params.parse()?;
    let states = parse_states(&state)?;
    let filter = v1::TaskFilter { states, handler, ..v1::TaskFilter::default() };
    let response = list_tasks(&call.client, filter, limit.as_ref(), page, true).await?;
    let tasks = response.tasks.iter().map(TaskJson::from).collect();
    let next_page = Some(&*response.next_page_token).filter(|token| !token.is_empty());
    Ok(to_json(&Listed { tasks, next_page, revision: response.revision }))
}

#[derive(Deserialize)]
struct ListRunning {
    limit: Option<Value>,
}

pub async fn list_running(call: Call) -> Result<Value, Status> {
    let ListRunning { limit } = call.params.parse()?;
    let states = vec![v1::TaskState::Running.into()];
    let filter = v1::TaskFilter { states, ..v1::TaskFilter::default() };
    let response = list_tasks(&call.client, filter, limit.as_ref(), String::new(), false).await?;
    Ok(response.tasks.iter().map(running_json).collect())
}

async fn list_tasks(
    client: &LoopbackClient,
    filter: v1::TaskFilter,
    limit: Option<&Value>,
    page_token: String,
    include_results: bool,
) -> Result<v1::ListTasksResponse, Status> {
    let limit = number("limit", limit, 1..=limits::PAGE_SIZE_MAX as u64)?;
    let page_size = limit.and_then(|limit| i32::try_from(limit).ok()).unwrap_or_default();
    let request = v1::ListTasksRequest { filter: Some(filter), page_size, page_token, include_results };
    client.rpc("/lineshaft.v1.TaskService/ListTasks", &request).await
}

/// Parses a comma-separated list of states.
fn parse_states(text: &str) -> Result<Vec<i32>, Status> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let states = names.map(|name| {
        let state = v1::TaskState::from_str_name(&format!("TASK_STATE_{}", name.to_ascii_uppercase()));
        let state = state.filter(|state| *state != v1::TaskState::Unspecified).ok_or_else(|| {
            let allowed = "waiting, queued, running, completed, failed, cancelled";
            into_status(InvalidFields::one("state", format!("is `{name}`, must be one of {allowed}")))
        });
        state.map(i32::from)
    });
    states.collect()
}

#[derive(Deserialize)]
struct Cancel {
    #[serde(default)]
    reason: String,
}

pub async fn cancel(call: Call) -> Result<Value, Status> {
    let Cancel { reason } = call.params.parse()?;
    let request = v1::CancelTaskRequest { task_id: call.id.clone(), reason, ..v1::CancelTaskRequest::default() };
    let response: v1::CancelTaskResponse = call.client.rpc("/lineshaft.v1.TaskService/CancelTask", &request).await?;
    let message = match response.state() {
        v1::TaskState::Running => "the task is being stopped",
        _ => "the task is cancelled",
    };
    Ok(json!({
        "message": message,
        "task_id": call.id,
        "state": state_name(response.state()),
        "revision": response.revision,
    }))
}

pub async fn clear_completed(call: Call) -> Result<Value, Status> {
    call.params.parse_none()?;
    let finished = [v1::TaskState::Completed, v1::TaskState::Failed, v1::TaskState::Cancelled];
    let filter = v1::TaskFilter { states: finished.map(i32::from).to_vec(), ..v1::TaskFilter::default() };
    let request = v1::DeleteTasksRequest { filter: Some(filter), validate_only: false };
    let response: v1::DeleteTasksResponse = call.client.rpc("/lineshaft.v1.TaskService/DeleteTasks", &request).await?;
    Ok(json!({ "cleared": response.deleted, "revision": response.revision }))
}

pub fn state_name(state: v1::TaskState) -> String {
    lower_case_name(state.as_str_name(), "TASK_STATE_")
}

/// Returns the name of an enum value of the contract without its prefix, in lower case.
pub fn lower_case_name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

/// A task, with the fields of `docs/http.md`.
#[derive(Serialize)]
struct TaskJson<'a> {
    id: &'a str,
    state: String,
    result: Option<Cow<'a, str>>,
    /// `text` or `base64`.
    result_encoding: Option<&'static str>,
    exception: Option<&'a str>,
    failure_reason: Option<String>,
    /// Of the last attempt, in seconds.
    execution_time: Option<f64>,
    wait_time: Option<f64>,
    priority: u8,
    pool: &'a str,
    progress: f64,
    attempt: i32,
    worker: &'a str,
    submitted_at: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct Meta<'a> {
    r#type: &'a str,
    label: &'a str,
    param: Option<Cow<'a, str>>,
    param_encoding: Option<&'static str>,
    submitted_by: &'a str,
}

impl<'a> From<&'a v1::Task> for TaskJson<'a> {
    fn from(task: &'a v1::Task) -> Self {
        let usage = task.resource_usage.as_ref();
        let failure = task.failure.as_ref();
        let (param, param_encoding) = task.payload.as_ref().and_then(text_of).unzip();
        let (result, result_encoding) = task.result.as_ref().and_then(text_of).unzip();
        Self {
            id: &task.task_id,
            state: state_name(task.state()),
            result,
            result_encoding,
            exception: failure.map(|failure| &*failure.message),
            failure_reason: failure.map(|failure| lower_case_name(failure.reason().as_str_name(), "FAILURE_REASON_")),
            execution_time: usage.and_then(|usage| usage.run_time.as_ref()).map(seconds),
            wait_time: usage.and_then(|usage| usage.queue_time.as_ref()).map(seconds),
            priority: priority_number(task.priority()),
            pool: &task.pool,
            progress: task.progress,
            attempt: task.attempt,
            worker: &task.worker,
            submitted_at: time(task.submitted_at.as_ref()),
            started_at: time(task.started_at.as_ref()),
            finished_at: time(task.finished_at.as_ref()),
            meta: Meta {
                r#type: &task.handler,
                label: &task.display_name,
                param,
                param_encoding,
                submitted_by: &task.submitted_by,
            },
        }
    }
}

fn running_json(task: &v1::Task) -> Value {
    let title = if task.display_name.is_empty() { &task.handler } else { &task.display_name };
    json!({
        "task_id": task.task_id,
        "title": title,
        "status": state_name(task.state()),
        "last_run": time(task.started_at.as_ref()),
        "run_count": task.attempt,
        "is_done": false,
        "is_cancelled": task.cancel.is_some(),
        "progress": task.progress,
        "worker": task.worker,
    })
}

fn to_json(value: &impl Serialize) -> String {
    // Cannot fail: the keys are names.
    serde_json::to_string(value).unwrap_or_default()
}

fn time(at: Option<&prost_types::Timestamp>) -> Option<String> {
    at.map(ToString::to_string)
}

pub fn seconds(duration: &prost_types::Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "durations of years keep their microseconds")]
    let whole = duration.seconds as f64;
    whole + f64::from(duration.nanos) / 1e9
}

/// A payload or result as a text, and how it is encoded: as itself, or in base64 if it is not UTF-8.
fn text_of(payload: &v1::Payload) -> Option<(Cow<'_, str>, &'static str)> {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let Some(Kind::Data(data)) = &payload.kind else { return None };
    Some(match std::str::from_utf8(data) {
        Ok(text) => (text.into(), "text"),
        Err(_) => (BASE64_STANDARD.encode(data).into(), "base64"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_param_that_is_valid_json_is_sent_as_json() {
        let of = |param: Value| {
            payload(param, None).map(|payload| {
                let Some(Kind::Data(data)) = payload.kind else { panic!("no data") };
                (String::from_utf8(data.to_vec()).unwrap(), payload.content_type)
            })
        };
        let json = |text: &str| Some((text.to_owned(), JSON.to_owned()));
        assert_eq!(of("5000000".into()), json("5000000"));
        assert_eq!(of(5_000_000.into()), json("5000000"));
        assert_eq!(of(json!({"n": 1})), json("{\"n\":1}"));
        assert_eq!(of("two words".into()), Some(("two words".to_owned(), TEXT.to_owned())));
        assert_eq!(of(Value::Null), None);
    }

    #[test]
    fn priority_numbers_are_converted_both_ways() {
        for number in 0..=3_u8 {
            assert_eq!(priority_number(priority_from_number(number.into())), number);
        }
        assert_eq!(priority_from_number(0), v1::Priority::Critical);
    }

    #[test]
    fn a_result_is_a_text_with_all_its_bytes() {
        let of = |data: &'static [u8]| {
            let payload = v1::Payload { kind: Some(Kind::Data(data.into())), content_type: JSON.to_owned() };
            let (text, encoding) = text_of(&payload).unwrap();
            (text.into_owned(), encoding)
        };
        let exact = "{ \"z\":123456789012345678901234567890, \"a\":1.50}";
        assert_eq!(of(exact.as_bytes()), (exact.to_owned(), "text"));
        assert_eq!(of(b"\xff"), ("/w==".to_owned(), "base64"));
    }
}
