//! SystemService: server info, health, and drain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::api::auth::{CallerExtractor, audit};
use crate::api::convert::numbers::to_i64;
use crate::api::convert::time::{duration, timestamp};
use crate::api::convert::{InvalidFields, system};
use crate::api::status::into_status;
use crate::model::Timestamp;
use crate::proto::v1::{self, system_service_server::SystemService};
use crate::scheduler::{ComponentHealth, Handle};
use crate::telemetry::host::HostReading;

/// The runners that the server is built with, and other features.
const CAPABILITIES: &[&str] = &[
    "runner.builtin",
    #[cfg(feature = "export")]
    "runner.export",
    "runner.http",
    "runner.process",
    "runner.remote",
    #[cfg(feature = "wasm")]
    "runner.wasm",
    "watch.resume",
];
const DRAIN_LIMIT_MAX: Duration = Duration::from_hours(24);

pub struct System {
    handle: Handle,
    host: HostReading,
    instance: String,
    trace_url: String,
    started_at: Timestamp,
    callers: CallerExtractor,
}

impl System {
    pub fn new(
        handle: Handle,
        host: HostReading,
        instance: String,
        trace_url: String,
        callers: CallerExtractor,
    ) -> Self {
        let started_at = handle.now();
        Self { handle, host, instance, trace_url, started_at, callers }
    }
}

#[tonic::async_trait]
impl SystemService for System {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let methods = caller.methods().map(str::to_owned).collect();
        let oldest = self.handle.oldest_revision();
        Ok(Response::new(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance.clone(),
            started_at: Some(timestamp(self.started_at)),
            uptime: Some(duration(self.handle.now().since(self.started_at))),
            limits: Some(system::limits(
                self.handle.retention(),
                self.handle.memory(),
                self.handle.catalog().payload_limit,
            )),
            capabilities: CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
            store: self.handle.store_kind().to_owned(),
            revision: self.handle.revision().0,
            oldest_revision: oldest.0,
            oldest_resume_token: self.handle.resume_token(oldest).encode(),
            caller: Some(v1::Caller { name: caller.name().to_owned(), methods }),
            trace_url: self.trace_url.clone(),
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
            system: Some(system::health(&(self.host)())),
            components: components.into_iter().map(message).collect(),
            draining: self.handle.draining().is_cancelled(),
            cleaned_files: to_i64(self.handle.artifacts().counts().expired.load(Ordering::Relaxed)),
        }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let mut invalid = InvalidFields::default();
        let limit = invalid.duration("limit", request.get_ref().limit.as_ref(), Duration::ZERO..=DRAIN_LIMIT_MAX);
        invalid.check().map_err(into_status)?;
        tracing::info!("draining; requested over the API");
        let running = self.handle.drain_and_count_running(limit).await.map_err(into_status);
        audit::record(&caller, "Drain", "server", &running);
        Ok(Response::new(v1::DrainResponse { running: to_i64(running?) }))
    }
}
