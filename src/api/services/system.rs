//! SystemService.

use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::model::{Timestamp, limits};
use crate::proto::v1::{self, system_service_server::SystemService};
use crate::scheduler::Handle;
use crate::telemetry::host::HostHealth;

use crate::api::auth::{CallerExtractor, audit};
use crate::api::convert::InvalidFields;
use crate::api::convert::task::{count, small};
use crate::api::convert::time::{duration, timestamp};
use crate::api::status;
use crate::telemetry::host::HostReading;

/// Longest time that a drain may give running tasks.
const DRAIN_MAX: Duration = Duration::from_hours(24);

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
            limits: Some(wire_limits(&self.handle)),
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
        let parts = self.handle.health().await;
        let wire = |part: crate::scheduler::ComponentHealth| v1::ComponentHealth {
            name: part.name.to_owned(),
            healthy: part.healthy,
            detail: part.detail,
        };
        Ok(Response::new(v1::GetSystemHealthResponse {
            system: Some(wire_health(&(self.host)())),
            components: parts.into_iter().map(wire).collect(),
            draining: self.handle.draining().is_cancelled(),
        }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let mut bad = InvalidFields::default();
        let limit = bad.span("limit", request.get_ref().limit.as_ref(), Duration::ZERO..=DRAIN_MAX);
        bad.check().map_err(|fields| status::of(&fields))?;
        let answer = self.handle.drain_and_count_running(limit).await.map_err(status::refused);
        audit::record(&caller, "Drain", "server", &answer);
        Ok(Response::new(v1::DrainResponse { running: count(answer?) }))
    }
}

pub fn wire_health(health: &HostHealth) -> v1::SystemHealth {
    v1::SystemHealth {
        cpu_percent: health.cpu_percent,
        memory_used_bytes: count(health.memory_used_bytes),
        memory_total_bytes: count(health.memory_total_bytes),
        memory_percent: health.memory_percent,
        process_memory_bytes: count(health.process_memory_bytes),
        process_threads: i32::try_from(health.process_threads).unwrap_or(i32::MAX),
        process_cpu_percent: health.process_cpu_percent,
        cores: i32::try_from(health.cores).unwrap_or(i32::MAX),
    }
}

fn wire_limits(handle: &Handle) -> v1::Limits {
    let small_size = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
    let retention = handle.limits();
    v1::Limits {
        payload_bytes: count(limits::PAYLOAD_BYTES_MAX as u64),
        result_bytes: count(limits::RESULT_BYTES_MAX as u64),
        batch_tasks: small_size(limits::BATCH_TASKS_MAX),
        labels: small_size(limits::LABELS_MAX),
        label_key_bytes: small_size(limits::LABEL_KEY_BYTES_MAX),
        label_value_bytes: small_size(limits::LABEL_VALUE_BYTES_MAX),
        display_name_bytes: small_size(limits::DISPLAY_NAME_BYTES_MAX),
        name_bytes: small_size(limits::NAME_BYTES_MAX),
        args: small_size(limits::ARGS_MAX),
        arg_bytes: small_size(limits::ARG_BYTES_MAX),
        page_size: small_size(limits::PAGE_SIZE_MAX),
        filter_values: small_size(limits::FILTER_VALUES_MAX),
        timeout: Some(duration(limits::TIMEOUT_MAX)),
        delay: Some(duration(limits::DELAY_MAX)),
        attempts: small(limits::ATTEMPTS_MAX),
        grace: Some(duration(limits::GRACE_MAX)),
        wait: Some(duration(limits::WAIT_MAX)),
        message_bytes: count(limits::MESSAGE_BYTES_MAX as u64),
        output_bytes: count(limits::OUTPUT_KEPT_BYTES as u64),
        retained_tasks: count(retention.count),
        retained_age: Some(duration(retention.age)),
    }
}
