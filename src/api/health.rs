//! grpc.health.v1, as its specification says: a watch on an unknown service stays open.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::scheduler::Handle;

use super::tasks::Body;

/// How often a watch looks whether the store or the scheduler have failed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time that the parts have to say how they do; one that is silent is not well.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

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
    stop: CancellationToken,
}

impl Probe {
    /// Watches end at `stop`; until then they tell that a drain has begun.
    pub fn new(handle: Handle, stop: CancellationToken) -> Self {
        Self { handle, stop }
    }

    async fn status(&self, service: &str) -> ServingStatus {
        if let Some(fixed) = fixed(service) {
            return fixed;
        }
        if self.handle.draining().is_cancelled() {
            return ServingStatus::NotServing;
        }
        match tokio::time::timeout(ANSWER_TIME_MAX, self.handle.health()).await {
            Ok(parts) if parts.iter().all(|part| part.healthy) => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        }
    }
}

/// The status that does not depend on how the parts do.
fn fixed(service: &str) -> Option<ServingStatus> {
    if !SERVICES.contains(&service) {
        return Some(ServingStatus::ServiceUnknown);
    }
    // Alive and started as long as it answers at all: a full disk is no reason for a restart.
    ["liveness", "startup"].contains(&service).then_some(ServingStatus::Serving)
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
        Ok(Response::new(Box::pin(async_stream::stream! {
            let draining = probe.handle.draining();
            let mut told = None;
            loop {
                let status = probe.status(&service).await;
                if told != Some(status) {
                    told = Some(status);
                    yield Ok(HealthCheckResponse { status: status.into() });
                }
                let settled = fixed(&service).is_some() || draining.is_cancelled();
                tokio::select! {
                    () = probe.stop.cancelled() => break,
                    () = draining.cancelled(), if !settled => {}
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
        assert_eq!(fixed("startup"), Some(ServingStatus::Serving));
        assert_eq!(fixed("readiness"), None);
        assert_eq!(fixed(""), None);
        assert_eq!(fixed("lineshaft.v1.NoSuchService"), Some(ServingStatus::ServiceUnknown));
    }
}
