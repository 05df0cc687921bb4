//! Plain routes about tasks.

use serde::Deserialize;
use serde_json::{Value, json};
use tonic::codegen::http::StatusCode;

use crate::model::limits;
use crate::proto::v1::{self, payload::Kind};

use super::super::loopback::LoopbackClient;
use super::super::response::JSON;
use super::Answer;
use super::fields::{Fields, number};
use crate::api::convert::InvalidFields;
use crate::api::status::refused;

const TEXT: &str = "text/plain; charset=utf-8";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submit {
    r#type: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    param: Value,
    priority: Option<Value>,
    #[serde(default)]
    label: String,
}

/// `POST /api/submit`
pub async fn submit(client: &LoopbackClient, fields: Fields) -> Answer {
    let Submit { r#type, id, param, priority, label } = fields.read()?;
    let mut bad = InvalidFields::default();
    bad.check_length("label", label.len(), limits::DISPLAY_NAME_BYTES_MAX, "bytes");
    bad.check().map_err(refused)?;
    let urgency = number("priority", priority.as_ref(), 0..=3)?;
    let request = v1::SubmitTaskRequest {
        handler: r#type,
        task_id: id,
        payload: payload(param),
        priority: urgency.map_or(v1::Priority::Unspecified, priority_of).into(),
        display_name: label,
        ..v1::SubmitTaskRequest::default()
    };
    let answer: v1::SubmitTaskResponse = client.rpc("/lineshaft.v1.TaskService/SubmitTask", &request).await?;
    let shown = json!({ "id": answer.task_id, "state": state_name(answer.state()), "revision": answer.revision });
    Ok((StatusCode::OK, shown))
}

/// A text that is JSON counts as JSON, because a form cannot say which it is.
fn payload(param: Value) -> Option<v1::Payload> {
    let (data, content_type) = match param {
        Value::Null => return None,
        Value::String(text) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => (text, JSON),
        Value::String(text) => (text, TEXT),
        value => (value.to_string(), JSON),
    };
    Some(v1::Payload { kind: Some(Kind::Data(data.into())), content_type: content_type.to_owned() })
}

/// 0 is the most urgent.
fn priority_of(urgency: u64) -> v1::Priority {
    match urgency {
        0 => v1::Priority::Critical,
        1 => v1::Priority::High,
        2 => v1::Priority::Normal,
        _ => v1::Priority::Low,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    wait: Option<Value>,
}

/// `GET /api/task/{id}`
pub async fn get(client: &LoopbackClient, fields: Fields, id: String) -> Answer {
    let Get { wait } = fields.read()?;
    let wait = number("wait", wait.as_ref(), 0..=limits::WAIT_MAX.as_secs())?;
    if let Some(seconds) = wait.and_then(|wait| i64::try_from(wait).ok()) {
        let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = v1::WaitTaskRequest { task_id: id.clone(), timeout };
        let _: v1::WaitTaskResponse = client.rpc("/lineshaft.v1.TaskService/WaitTask", &request).await?;
    }
    let request = v1::GetTaskRequest { task_id: id, include_payload: true };
    let answer: v1::GetTaskResponse = client.rpc("/lineshaft.v1.TaskService/GetTask", &request).await?;
    Ok((StatusCode::OK, answer.task.as_ref().map_or(Value::Null, task)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    state: String,
    #[serde(default, rename = "type")]
    handler: String,
    limit: Option<Value>,
    #[serde(default)]
    page: String,
}

/// `GET /api/tasks`
pub async fn list(client: &LoopbackClient, fields: Fields) -> Answer {
    page(client, fields.read()?).await
}

/// `GET /api/tasks/running`
pub async fn running(client: &LoopbackClient, fields: Fields) -> Answer {
    let mut wanted: List = fields.read()?;
    if !wanted.state.is_empty() {
        return Err(refused(InvalidFields::one("state", "cannot be chosen here; GET /api/tasks has all states")));
    }
    "RUNNING".clone_into(&mut wanted.state);
    page(client, wanted).await
}

async fn page(client: &LoopbackClient, wanted: List) -> Answer {
    let mut states = Vec::new();
    for name in wanted.state.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let state = v1::TaskState::from_str_name(&format!("TASK_STATE_{}", name.to_ascii_uppercase()));
        let Some(state) = state.filter(|state| *state != v1::TaskState::Unspecified) else {
            let allowed = "WAITING, QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED";
            return Err(refused(InvalidFields::one("state", format!("is `{name}`, those are {allowed}"))));
        };
        states.push(state.into());
    }
    let limit = number("limit", wanted.limit.as_ref(), 1..=limits::PAGE_SIZE_MAX as u64)?;
    let request = v1::ListTasksRequest {
        filter: Some(v1::TaskFilter { states, handler: wanted.handler, ..v1::TaskFilter::default() }),
        page_size: limit.and_then(|limit| i32::try_from(limit).ok()).unwrap_or_default(),
        page_token: wanted.page,
        include_results: true,
    };
    let answer: v1::ListTasksResponse = client.rpc("/lineshaft.v1.TaskService/ListTasks", &request).await?;
    let tasks: Vec<_> = answer.tasks.iter().map(task).collect();
    let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
    Ok((StatusCode::OK, json!({ "tasks": tasks, "next_page": next, "revision": answer.revision })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    #[serde(default)]
    reason: String,
}

/// `POST /api/tasks/{id}/cancel`
pub async fn cancel(client: &LoopbackClient, fields: Fields, id: String) -> Answer {
    let Cancel { reason } = fields.read()?;
    let request = v1::CancelTaskRequest { task_id: id.clone(), reason, ..v1::CancelTaskRequest::default() };
    let answer: v1::CancelTaskResponse = client.rpc("/lineshaft.v1.TaskService/CancelTask", &request).await?;
    let shown = json!({ "id": id, "state": state_name(answer.state()), "revision": answer.revision });
    Ok((StatusCode::OK, shown))
}

/// `POST /api/clear-completed`
pub async fn clear(client: &LoopbackClient, fields: Fields) -> Answer {
    fields.none()?;
    let ended = [v1::TaskState::Completed, v1::TaskState::Failed, v1::TaskState::Cancelled];
    let filter = v1::TaskFilter { states: ended.map(i32::from).to_vec(), ..v1::TaskFilter::default() };
    let request = v1::DeleteTasksRequest { filter: Some(filter) };
    let answer: v1::DeleteTasksResponse = client.rpc("/lineshaft.v1.TaskService/DeleteTasks", &request).await?;
    Ok((StatusCode::OK, json!({ "cleared": answer.deleted, "revision": answer.revision })))
}

/// A state without its prefix.
fn state_name(state: v1::TaskState) -> &'static str {
    state.as_str_name().trim_start_matches("TASK_STATE_")
}

/// A task as a script wants it.
fn task(task: &v1::Task) -> Value {
    let moment = |at: Option<&prost_types::Timestamp>| at.map(ToString::to_string);
    let usage = task.resource_usage.as_ref();
    let failure = task.failure.as_ref().map(|failure| {
        let reason = failure.reason().as_str_name().trim_start_matches("FAILURE_REASON_");
        json!({ "reason": reason, "message": failure.message })
    });
    json!({
        "id": task.task_id,
        "type": task.handler,
        "param": task.payload.as_ref().map(content),
        "priority": urgency(task.priority()),
        "label": task.display_name,
        "pool": task.pool,
        "state": state_name(task.state()),
        "progress": task.progress,
        "attempt": task.attempt,
        "worker": task.worker,
        "submitted_at": moment(task.submitted_at.as_ref()),
        "started_at": moment(task.started_at.as_ref()),
        "finished_at": moment(task.finished_at.as_ref()),
        "queue_seconds": usage.and_then(|usage| usage.queue_time.as_ref()).map(seconds),
        "run_seconds": usage.and_then(|usage| usage.run_time.as_ref()).map(seconds),
        "result": task.result.as_ref().map(content),
        "error": failure,
    })
}

/// 0 is the most urgent.
pub const fn urgency(priority: v1::Priority) -> u8 {
    match priority {
        v1::Priority::Critical => 0,
        v1::Priority::High => 1,
        v1::Priority::Normal | v1::Priority::Unspecified => 2,
        v1::Priority::Low => 3,
    }
}

/// A span as a number.
pub fn seconds(span: &prost_types::Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "spans of years still have their microseconds")]
    let whole = span.seconds as f64;
    whole + f64::from(span.nanos) / 1e9
}

/// A payload or result: the JSON value that it is, or its text, or its bytes in base64.
fn content(payload: &v1::Payload) -> Value {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let Some(Kind::Data(data)) = &payload.kind else { return Value::Null };
    let json = payload.content_type.starts_with(JSON).then(|| serde_json::from_slice(data).ok()).flatten();
    let text = || std::str::from_utf8(data).ok().map(Value::from);
    json.or_else(text).unwrap_or_else(|| json!({ "base64": BASE64_STANDARD.encode(data) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_param_is_json_wherever_it_can_be() {
        let of = |param: Value| {
            payload(param).map(|payload| {
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
    fn urgency_and_priority_are_each_others_mirror() {
        for number in 0..=3_u8 {
            assert_eq!(urgency(priority_of(number.into())), number);
        }
        assert_eq!(priority_of(0), v1::Priority::Critical);
    }

    #[test]
    fn content_is_shown_as_what_it_is() {
        let of = |data: &'static [u8], content_type: &str| {
            content(&v1::Payload { kind: Some(Kind::Data(data.into())), content_type: content_type.to_owned() })
        };
        assert_eq!(of(b"{\"n\":1}", JSON), json!({"n": 1}));
        assert_eq!(of(b"not json", JSON), json!("not json"));
        assert_eq!(of(b"1", "text/plain"), json!("1"));
        assert_eq!(of(b"\xff", ""), json!({"base64": "/w=="}));
    }
}
