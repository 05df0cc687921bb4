//! Plain routes for tasks.

use std::borrow::Cow;

use serde::Deserialize;
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
    Ok(json!({ "id": response.task_id, "state": state_name(response.state()), "revision": response.revision }))
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
    // WaitTask does not return the payload.
    let request = v1::GetTaskRequest { task_id: call.id, include_payload: true };
    let response: Result<v1::GetTaskResponse, Status> =
        call.client.rpc("/lineshaft.v1.TaskService/GetTask", &request).await;
    let task = match (response, waited) {
        (Ok(response), _) => response.task,
        // The task was deleted after its end.
        (Err(error), Some(waited)) if error.code() == Code::NotFound => Some(waited),
        (Err(error), _) => return Err(error),
    };
    Ok(task_json(&task.unwrap_or_default()))
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

pub async fn list(call: Call) -> Result<String, Status> {
    list_tasks(&call.client, call.params.parse()?).await
}

pub async fn list_running(call: Call) -> Result<String, Status> {
    let list: List = call.params.parse()?;
    if !list.state.is_empty() {
        let description = "is not supported by /api/tasks/running; use GET /api/tasks";
        return Err(into_status(InvalidFields::one("state", description)));
    }
    list_tasks(&call.client, List { state: "RUNNING".to_owned(), ..list }).await
}

async fn list_tasks(client: &LoopbackClient, list: List) -> Result<String, Status> {
    let limit = number("limit", list.limit.as_ref(), 1..=limits::PAGE_SIZE_MAX as u64)?;
    let states = parse_states(&list.state)?;
    let request = v1::ListTasksRequest {
        filter: Some(v1::TaskFilter { states, handler: list.handler, ..v1::TaskFilter::default() }),
        page_size: limit.and_then(|limit| i32::try_from(limit).ok()).unwrap_or_default(),
        page_token: list.page,
        include_results: true,
    };
    let response: v1::ListTasksResponse = client.rpc("/lineshaft.v1.TaskService/ListTasks", &request).await?;
    let tasks: Vec<_> = response.tasks.iter().map(task_json).collect();
    let next_page = Some(response.next_page_token).filter(|token| !token.is_empty());
    let (tasks, next_page) = (tasks.join(","), json!(next_page));
    Ok(format!("{{\"tasks\":[{tasks}],\"next_page\":{next_page},\"revision\":{}}}", response.revision))
}

/// Parses a comma-separated list of states.
fn parse_states(text: &str) -> Result<Vec<i32>, Status> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let states = names.map(|name| {
        let state = v1::TaskState::from_str_name(&format!("TASK_STATE_{}", name.to_ascii_uppercase()));
        let state = state.filter(|state| *state != v1::TaskState::Unspecified).ok_or_else(|| {
            let allowed = "WAITING, QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED";
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
    Ok(json!({ "id": call.id, "state": state_name(response.state()), "revision": response.revision }))
}

pub async fn clear_completed(call: Call) -> Result<Value, Status> {
    call.params.parse_none()?;
    let finished = [v1::TaskState::Completed, v1::TaskState::Failed, v1::TaskState::Cancelled];
    let filter = v1::TaskFilter { states: finished.map(i32::from).to_vec(), ..v1::TaskFilter::default() };
    let request = v1::DeleteTasksRequest { filter: Some(filter) };
    let response: v1::DeleteTasksResponse = call.client.rpc("/lineshaft.v1.TaskService/DeleteTasks", &request).await?;
    Ok(json!({ "cleared": response.deleted, "revision": response.revision }))
}

/// Returns the name of a state without its prefix.
fn state_name(state: v1::TaskState) -> &'static str {
    state.as_str_name().trim_start_matches("TASK_STATE_")
}

fn task_json(task: &v1::Task) -> String {
    let time = |at: Option<&prost_types::Timestamp>| at.map(ToString::to_string);
    let usage = task.resource_usage.as_ref();
    let failure = task.failure.as_ref().map(|failure| {
        let reason = failure.reason().as_str_name().trim_start_matches("FAILURE_REASON_");
        json!({ "reason": reason, "message": failure.message })
    });
    let others = json!({
        "id": task.task_id,
        "type": task.handler,
        "priority": priority_number(task.priority()),
        "label": task.display_name,
        "pool": task.pool,
        "state": state_name(task.state()),
        "progress": task.progress,
        "attempt": task.attempt,
        "worker": task.worker,
        "submitted_at": time(task.submitted_at.as_ref()),
        "started_at": time(task.started_at.as_ref()),
        "finished_at": time(task.finished_at.as_ref()),
        "queue_seconds": usage.and_then(|usage| usage.queue_time.as_ref()).map(seconds),
        "run_seconds": usage.and_then(|usage| usage.run_time.as_ref()).map(seconds),
        "error": failure,
    });
    let mut json = others.to_string();
    json.truncate(json.len() - 1);
    for (name, payload) in [("param", task.payload.as_ref()), ("result", task.result.as_ref())] {
        json.extend([",\"", name, "\":", &payload.map_or(Cow::Borrowed("null"), payload_json)]);
    }
    json + "}"
}

pub fn seconds(duration: &prost_types::Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "durations of years keep their microseconds")]
    let whole = duration.seconds as f64;
    whole + f64::from(duration.nanos) / 1e9
}

/// Returns the JSON of a payload or result: its exact text if it is JSON, otherwise a string; in base64 if it is not UTF-8.
fn payload_json(payload: &v1::Payload) -> Cow<'_, str> {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let Some(Kind::Data(data)) = &payload.kind else { return Cow::Borrowed("null") };
    match std::str::from_utf8(data) {
        Ok(text) if payload.content_type.starts_with(JSON) && is_json(text) => Cow::Borrowed(text),
        Ok(text) => Cow::Owned(json!(text).to_string()),
        Err(_) => Cow::Owned(json!({ "base64": BASE64_STANDARD.encode(data) }).to_string()),
    }
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
    fn payloads_are_converted_to_json() {
        let of = |data: &'static [u8], content_type: &str| {
            let payload = v1::Payload { kind: Some(Kind::Data(data.into())), content_type: content_type.to_owned() };
            payload_json(&payload).into_owned()
        };
        let exact = "{ \"z\":123456789012345678901234567890, \"a\":1.50}";
        assert_eq!(of(exact.as_bytes(), JSON), exact);
        assert_eq!(of(b"not \"json", JSON), r#""not \"json""#);
        assert_eq!(of(br#""\ud800""#, JSON), r#""\"\\ud800\"""#, "as text: other clients could not read it");
        assert_eq!(of(b"1", "text/plain"), "\"1\"");
        assert_eq!(of(b"\xff", ""), r#"{"base64":"/w=="}"#);
    }
}
