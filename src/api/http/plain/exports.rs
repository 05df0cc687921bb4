//! The plain route of exports.

use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

use crate::api::convert::InvalidFields;
use crate::api::status::into_status;
use crate::model::ErrorCode;
use crate::proto::v1::{self, payload::Kind};

use super::super::loopback::LoopbackClient;
use super::super::response::{JSON, edge_error};
use super::call::Call;
use super::server::Totals;
use super::tasks::state_name;

#[derive(Deserialize)]
struct Export {
    format: Option<String>,
    pool_status: Option<String>,
}

/// Submits a task of the handler in the path, or shows the pool of the handler.
pub async fn export(call: Call) -> Result<Value, Status> {
    let Call { client, params, id } = call;
    let Export { format, pool_status } = params.parse()?;
    let invalid = |field, problem| Err(into_status(InvalidFields::one(field, problem)));
    let format = match format.as_deref() {
        None => "csv",
        Some("excel") => "xlsx",
        Some(format @ ("csv" | "jsonl" | "xlsx" | "pdf")) => format,
        Some(other) => return invalid("format", format!("is `{other}`, must be csv, jsonl, xlsx, excel or pdf")),
    };
    let shows_pool = match pool_status.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return invalid("pool_status", format!("is `{other}`, must be true or false")),
    };
    let request = v1::GetHandlerRequest { name: id };
    let response: v1::GetHandlerResponse = client.rpc("/lineshaft.v1.HandlerService/GetHandler", &request).await?;
    let handler = response.handler.unwrap_or_default();
    if handler.runner != "export" {
        let message = format!("handler `{}` has the runner `{}`, must be `export`", handler.name, handler.runner);
        return Err(edge_error(ErrorCode::UnknownHandler, message));
    }
    if shows_pool { pool_json(&client, handler.pool).await } else { start(&client, handler.name, format).await }
}

async fn start(client: &LoopbackClient, handler: String, format: &str) -> Result<Value, Status> {
    let data = json!({ "format": format }).to_string();
    let request = v1::SubmitTaskRequest {
        handler: handler.clone(),
        payload: Some(v1::Payload { kind: Some(Kind::Data(data.into())), content_type: JSON.to_owned() }),
        ..v1::SubmitTaskRequest::default()
    };
    let response: v1::SubmitTaskResponse = client.rpc("/lineshaft.v1.TaskService/SubmitTask", &request).await?;
    let id = &response.task_id;
    Ok(json!({
        "success": true,
        "task_id": id,
        "state": state_name(response.state()),
        "task_url": format!("/api/task/{id}"),
        "file_url": format!("/artifacts/{id}/{handler}.{format}"),
    }))
}

async fn pool_json(client: &LoopbackClient, pool: String) -> Result<Value, Status> {
    let request = v1::GetPoolMetricsRequest { name: pool, include_workers: false };
    let response: v1::GetPoolMetricsResponse = client.rpc("/lineshaft.v1.PoolService/GetPoolMetrics", &request).await?;
    let health: v1::GetSystemHealthResponse =
        client.rpc("/lineshaft.v1.SystemService/GetSystemHealth", &v1::GetSystemHealthRequest {}).await?;
    let metrics = response.metrics.unwrap_or_default();
    let totals = Totals::of(std::slice::from_ref(&metrics));
    Ok(json!({
        "export_pool": {
            "name": metrics.pool,
            "active_threads": metrics.busy,
            "max_workers": metrics.busy + metrics.idle,
            "pending_tasks": totals.pending(),
            "total_tasks": totals.total(),
            "completed_tasks": totals.completed,
            "failed_tasks": totals.failed,
        },
        // The worker of an export converts its rows, one by one.
        "processing_pool": { "active_threads": 0, "max_workers": 0, "pending_tasks": 0 },
        "batch_size": 1,
        "cleaned_files": health.cleaned_files,
    }))
}
