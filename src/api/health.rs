//! grpc.health.v1, as its specification says: a watch on an unknown service stays open.

use std::time::Duration;

use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::scheduler::Handle;

use super::tasks::Body;

/// How often a watch looks whether the store or the scheduler have failed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Every name that has a status; `liveness`, `readiness` and `startup` are for probes.
const SERVICES: [&str; 9] = [
    "",
    "lineshaft.v1.TaskService",
    "lineshaft.v1.PoolService",
    "lineshaft.v1.HandlerService",
    "lineshaft.v1.SystemService",
    "grpc.health.v1.Health",
    "liveness",
    "readiness",
    "startup",
];

#[derive(Clone)]
pub(super) struct Probe {
    handle: Handle,
}

impl Probe {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }

    async fn status(&self, service: &str) -> ServingStatus {
        if !SERVICES.contains(&service) {
            return ServingStatus::ServiceUnknown;
        }
        // Alive and started as long as it answers at all: a full disk is no reason for a restart.
        if ["liveness", "startup"].contains(&service) {
            return ServingStatus::Serving;
        }
        let able = self.handle.health().await.iter().all(|part| part.healthy);
        if able && !self.handle.draining().is_cancelled() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

#[tonic::async_trait]
impl Health for Probe {
    type WatchStream = Body<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service).await {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("service `{service}` is not known"))),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let probe = self.clone();
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            let draining = probe.handle.draining();
            let mut told = None;
            loop {
                let status = probe.status(&service).await;
                if told != Some(status) {
                    told = Some(status);
                    yield HealthCheckResponse { status: status.into() };
                }
                // The last change is told before the stream ends with the server.
                if draining.is_cancelled() {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = draining.cancelled() => {}
                }
            }
        })))
    }
}
