//! grpc.health.v1. As its specification requires, a watch on an unknown service stays open.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::telemetry::liveness::{Liveness, Phase};

/// How often a watch checks whether the store or the scheduler has failed.
const INTERVAL: Duration = Duration::from_millis(500);

/// All services with a status; `liveness`, `readiness` and `startup` are for probes.
const SERVICES: [&str; 13] = [
    "",
    "lineshaft.v1.TaskService",
    "lineshaft.v1.BatchService",
    "lineshaft.v1.ScheduleService",
    "lineshaft.v1.PoolService",
    "lineshaft.v1.HandlerService",
    "lineshaft.v1.WorkerService",
    "lineshaft.v1.ArtifactService",
    "lineshaft.v1.SystemService",
    "grpc.health.v1.Health",
    "liveness",
    "readiness",
    "startup",
];

#[derive(Clone)]
pub struct HealthService {
    liveness: Arc<Liveness>,
    stop: CancellationToken,
}

impl HealthService {
    /// Watches end at `stop`. During a drain before, they send NOT_SERVING.
    pub fn new(liveness: Arc<Liveness>, stop: CancellationToken) -> Self {
        Self { liveness, stop }
    }

    fn status(&self, service: &str) -> ServingStatus {
        let is_serving = match service {
            "startup" => self.liveness.phase() != Phase::Recovering,
            _ => self.liveness.is_ready(),
        };
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        constant(service).unwrap_or(status)
    }
}

/// The status of services that do not depend on the state of the server.
fn constant(service: &str) -> Option<ServingStatus> {
    if !SERVICES.contains(&service) {
        return Some(ServingStatus::ServiceUnknown);
    }
    // Live as long as it responds at all: a restart does not help against a full disk.
    (service == "liveness").then_some(ServingStatus::Serving)
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("unknown service `{service}`"))),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let health = self.clone();
        Ok(Response::new(Box::pin(async_stream::stream! {
            let mut phases = health.liveness.subscribe_phase();
            let mut sent = None;
            loop {
                let status = health.status(&service);
                if sent != Some(status) {
                    sent = Some(status);
                    yield Ok(HealthCheckResponse { status: status.into() });
                }
                let is_final = constant(&service).is_some() || health.liveness.phase() == Phase::Draining;
                tokio::select! {
                    () = health.stop.cancelled() => break,
                    _ = phases.changed(), if !is_final => {}
                    () = tokio::time::sleep(INTERVAL), if !is_final => {}
                }
            }
        })))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn every_service_of_the_contract_has_a_status() {
        let set = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap();
        for file in set.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                assert!(SERVICES.contains(&name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn liveness_and_unknown_services_have_a_constant_status() {
        assert_eq!(constant("liveness"), Some(ServingStatus::Serving));
        assert_eq!(constant("readiness"), None);
        assert_eq!(constant(""), None);
        assert_eq!(constant("lineshaft.v1.NoSuchService"), Some(ServingStatus::ServiceUnknown));
    }

    #[test]
    fn the_status_follows_the_phase_of_the_server() {
        let liveness = Arc::new(Liveness::default());
        let health = HealthService::new(liveness.clone(), CancellationToken::new());
        let statuses = || ["liveness", "startup", "readiness", ""].map(|service| health.status(service));
        let (serving, not) = (ServingStatus::Serving, ServingStatus::NotServing);
        assert_eq!(statuses(), [serving, not, not, not]);
        liveness.enter(Phase::Serving);
        assert_eq!(statuses(), [serving; 4]);
        liveness.heartbeat(true);
        assert_eq!(statuses(), [serving, serving, not, not], "the store refuses appends");
        liveness.enter(Phase::Draining);
        assert_eq!(statuses(), [serving, serving, not, not]);
    }
}
