//! SystemService: server info, health, and drain.

use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::model::{Timestamp, limits};
use crate::proto::v1::{self, system_service_server::SystemService};
use crate::scheduler::{ComponentHealth, Handle};
use crate::telemetry::host::HostHealth;

use crate::api::auth::{CallerExtractor, audit};
use crate::api::convert::InvalidFields;
use crate::api::convert::numbers::{to_i32, to_i64};
use crate::api::convert::time::{duration, timestamp};
use crate::api::status::refused;
use crate::telemetry::host::HostReading;

const DRAIN_LIMIT_MAX: Duration = Duration::from_hours(24);

pub struct System {
    handle: Handle,
    host: HostReading,
    instance: String,
    started_at: Timestamp,
    callers: CallerExtractor,
}

impl System {
    pub fn new(handle: Handle, host: HostReading, instance: String, callers: CallerExtractor) -> Self {
        let started_at = handle.now();
        Self { handle, host, instance, started_at, callers }
    }
}

#[tonic::async_trait]
impl SystemService for System {
    async fn get_server_info(
        &self,
        _request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        Ok(Response::new(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance.clone(),
            started_at: Some(timestamp(self.started_at)),
            uptime: Some(duration(self.handle.now().since(self.started_at))),
            limits: Some(limits_message(&self.handle)),
            capabilities: ["runner.builtin", "runner.process", "watch.resume"].map(str::to_owned).to_vec(),
            store: self.handle.store_kind().to_owned(),
            revision: self.handle.revision().0,
            oldest_revision: self.handle.oldest_revision().0,
        }))
    }

    async fn get_system_health(
        &self,
        _request: Request<v1::GetSystemHealthRequest>,
    ) -> Result<Response<v1::GetSystemHealthResponse>, Status> {
        let components = self.handle.health().await;
        let message = |component: ComponentHealth| v1::ComponentHealth {
            name: component.name.to_owned(),
            healthy: component.healthy,
            detail: component.detail,
        };
        Ok(Response::new(v1::GetSystemHealthResponse {
            system: Some(health_message(&(self.host)())),
            components: components.into_iter().map(message).collect(),
            draining: self.handle.draining().is_cancelled(),
        }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let mut invalid = InvalidFields::default();
        let limit = invalid.duration("limit", request.get_ref().limit.as_ref(), Duration::ZERO..=DRAIN_LIMIT_MAX);
        invalid.check().map_err(refused)?;
        let running = self.handle.drain_and_count_running(limit).await.map_err(refused);
        audit::record(&caller, "Drain", "server", &running);
        Ok(Response::new(v1::DrainResponse { running: to_i64(running?) }))
    }
}

pub fn health_message(health: &HostHealth) -> v1::SystemHealth {
    v1::SystemHealth {
        cpu_percent: health.cpu_percent,
        memory_used_bytes: to_i64(health.memory_used_bytes),
        memory_total_bytes: to_i64(health.memory_total_bytes),
        memory_percent: health.memory_percent,
        process_memory_bytes: to_i64(health.process_memory_bytes),
        process_threads: to_i32(health.process_threads),
        process_cpu_percent: health.process_cpu_percent,
        cores: to_i32(health.cores),
    }
}

fn limits_message(handle: &Handle) -> v1::Limits {
    let retention = handle.retention();
    v1::Limits {
        payload_bytes: to_i64(limits::PAYLOAD_BYTES_MAX),
        result_bytes: to_i64(limits::RESULT_BYTES_MAX),
        batch_tasks: to_i32(limits::BATCH_TASKS_MAX),
        labels: to_i32(limits::LABELS_MAX),
        label_key_bytes: to_i32(limits::LABEL_KEY_BYTES_MAX),
        label_value_bytes: to_i32(limits::LABEL_VALUE_BYTES_MAX),
        display_name_bytes: to_i32(limits::DISPLAY_NAME_BYTES_MAX),
        name_bytes: to_i32(limits::NAME_BYTES_MAX),
        args: to_i32(limits::ARGS_MAX),
        arg_bytes: to_i32(limits::ARG_BYTES_MAX),
        page_size: to_i32(limits::PAGE_SIZE_MAX),
        filter_values: to_i32(limits::FILTER_VALUES_MAX),
        timeout: Some(duration(limits::TIMEOUT_MAX)),
        delay: Some(duration(limits::DELAY_MAX)),
        attempts: to_i32(limits::ATTEMPTS_MAX),
        grace: Some(duration(limits::GRACE_MAX)),
        wait: Some(duration(limits::WAIT_MAX)),
        message_bytes: to_i64(limits::MESSAGE_BYTES_MAX),
        output_bytes: to_i64(limits::OUTPUT_KEPT_BYTES),
        retained_tasks: to_i64(retention.count),
        retained_age: Some(duration(retention.age)),
    }
}
