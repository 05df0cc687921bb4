//! grpc.health.v1, as its specification says: a watch on an unknown service stays open.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::telemetry::liveness::{Liveness, Phase};

/// How often a watch looks whether the store or the scheduler have failed.
const INTERVAL: Duration = Duration::from_millis(500);

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
pub struct Probe {
    liveness: Arc<Liveness>,
    stop: CancellationToken,
}

impl Probe {
    /// Watches end at `stop`; until then they tell that a drain has begun.
    pub fn new(liveness: Arc<Liveness>, stop: CancellationToken) -> Self {
        Self { liveness, stop }
    }

    fn status(&self, service: &str) -> ServingStatus {
        let serves = match service {
            "startup" => self.liveness.phase() != Phase::Recovering,
            _ => self.liveness.is_ready(),
        };
        let found = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        fixed(service).unwrap_or(found)
    }
}

/// The status that does not depend on how the parts do.
fn fixed(service: &str) -> Option<ServingStatus> {
    if !SERVICES.contains(&service) {
        return Some(ServingStatus::ServiceUnknown);
    }
    // Alive as long as it answers at all: a full disk is no reason for a restart.
    (service == "liveness").then_some(ServingStatus::Serving)
}

#[tonic::async_trait]
impl Health for Probe {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("service `{service}` is not known"))),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let probe = self.clone();
        Ok(Response::new(Box::pin(async_stream::stream! {
            let mut phases = probe.liveness.subscribe_phase();
            let mut told = None;
            loop {
                let status = probe.status(&service);
                if told != Some(status) {
                    told = Some(status);
                    yield Ok(HealthCheckResponse { status: status.into() });
                }
                let settled = fixed(&service).is_some() || probe.liveness.phase() == Phase::Draining;
                tokio::select! {
                    () = probe.stop.cancelled() => break,
                    _ = phases.changed(), if !settled => {}
                    () = tokio::time::sleep(INTERVAL), if !settled => {}
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
    fn a_full_disk_is_no_reason_for_a_restart_and_an_unknown_service_is_unknown() {
        assert_eq!(fixed("liveness"), Some(ServingStatus::Serving));
        assert_eq!(fixed("readiness"), None);
        assert_eq!(fixed(""), None);
        assert_eq!(fixed("lineshaft.v1.NoSuchService"), Some(ServingStatus::ServiceUnknown));
    }

    #[test]
    fn while_recovering_it_lives_has_not_started_and_is_not_ready() {
        let liveness = Arc::new(Liveness::default());
        let probe = Probe::new(liveness.clone(), CancellationToken::new());
        let statuses = || ["liveness", "startup", "readiness", ""].map(|service| probe.status(service));
        let (serving, not) = (ServingStatus::Serving, ServingStatus::NotServing);
        assert_eq!(statuses(), [serving, not, not, not]);
        liveness.enter(Phase::Serving);
        assert_eq!(statuses(), [serving; 4]);
        liveness.heartbeat(true);
        assert_eq!(statuses(), [serving, serving, not, not], "the store refuses");
        liveness.enter(Phase::Draining);
        assert_eq!(statuses(), [serving, serving, not, not]);
    }
}
