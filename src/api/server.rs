//! All services behind one listener.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::model::limits;
use crate::proto::v1::handler_service_server::HandlerServiceServer;
use crate::proto::v1::pool_service_server::PoolServiceServer;
use crate::proto::v1::system_service_server::SystemServiceServer;
use crate::proto::v1::task_service_server::TaskServiceServer;
use crate::scheduler::Handle;
use crate::telemetry::Telemetry;
use crate::telemetry::host::HostReading;
use crate::telemetry::metrics::CallMeter;

use super::admin;
use super::auth::CallerExtractor;
use super::http::health::View;
use super::http::{Contract, Front, Origins, Shared};
use super::listener::accept;
use super::middleware::guard::Guard;
use super::security::Security;
use super::services::handlers::Handlers;
use super::services::health::Probe;
use super::services::pools::Pools;
use super::services::system::System;
use super::services::tasks::Tasks;

/// Bounds of the edge.
#[derive(Clone)]
pub struct Options {
    /// Streams of one connection.
    pub max_concurrent_streams: u32,
    /// Time between pings on a quiet connection.
    pub keepalive_interval: Duration,
    /// Time that a ping's answer may take.
    pub keepalive_timeout: Duration,
    /// Age at which a connection is sent away, ± 10 %, so that clients spread over replicas.
    pub connection_age: Duration,
    /// Time that its calls then get.
    pub connection_age_grace: Duration,
    /// Time in which a connection must say what it speaks, in which the headers of an HTTP/1.1 call
    /// must be complete, and for which such a connection may be idle.
    pub header_timeout: Duration,
    /// Time in which the body of a call must be complete, unless the call takes a stream.
    pub body_timeout: Duration,
    /// Origins of web pages that may call, such as `https://tasks.example.com`; `*` for all.
    pub allowed_origins: Vec<String>,
    /// Names of this server that callers may use besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Calls under way in the whole server; beyond, callers get OVERLOADED.
    pub max_in_flight: usize,
    /// Identity of this run of the server.
    pub instance: String,
    /// Reads the machine's and the process's health.
    pub host: HostReading,
    /// What the parts publish.
    pub telemetry: Telemetry,
}

/// Serves `/health`, `/metrics` and grpc.health.v1 on a port of their own until `stop`; and KEDA's scaler
/// once there is a scheduler.
pub async fn serve_probes(
    listener: TcpListener,
    options: Options,
    scheduler: admin::health::Later,
    stop: CancellationToken,
) {
    admin::health::serve(listener, view(&options), scheduler, stop).await;
}

fn view(options: &Options) -> View {
    let Options { telemetry, host, instance, .. } = options.clone();
    View { telemetry, host, instance }
}

/// Why the edge ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The reflection service cannot read the contract.
    #[error("failed to build reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The JSON side cannot read the contract.
    #[error("failed to read the contract: {0}")]
    Contract(#[from] prost_reflect::DescriptorError),
}

/// Serves until `stop`; returns at most a few seconds later, when no connection is open any more.
///
/// Streams end by themselves when a drain begins, so it should have begun before.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    options: Options,
    mut security: Security,
    handle: Handle,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure();
        let builder = builder.register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS);
        builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reflection_v1, reflection_v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    security.spawn(handle.clone(), stop.clone());
    let callers = CallerExtractor::new(security.access.is_some());
    let tasks = TaskServiceServer::new(Tasks::new(handle.clone(), callers))
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    let pools = Pools::new(handle.clone(), options.host.clone(), callers);
    let system = System::new(handle.clone(), options.host.clone(), options.instance.clone(), callers);
    let routes = Routes::new(tasks)
        .add_service(PoolServiceServer::new(pools))
        .add_service(HandlerServiceServer::new(Handlers::new(handle.clone())))
        .add_service(SystemServiceServer::new(system))
        .add_service(super::services::keda::service(handle.clone()))
        .add_service(HealthServer::new(Probe::new(options.telemetry.liveness.clone(), stop.clone())))
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha);
    let meter = CallMeter::new(&options.telemetry.metrics, methods());
    let calls = Guard::new(routes.prepare(), options.max_in_flight).counting(meter);
    let calls = calls.asking(security.access.clone()).patient(options.body_timeout);
    // Whoever can be reached by a name of the network has other walls: see the module.
    let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let shared = Shared {
        view: view(&options),
        contract: Arc::new(Contract::new()?),
        origins: Origins {
            allowed: options.allowed_origins.clone(),
            check_host: is_loopback || !options.hosts.is_empty(),
            hosts: options.hosts.clone(),
        },
        body_timeout: options.body_timeout,
    };
    let front = Front::new(calls, shared);
    accept::serve(listener, front, &security, &options, stop).await;
    Ok(())
}

/// Every method that is served, as `package.Service/Method`.
fn methods() -> Vec<String> {
    let sets = [crate::proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let sets = sets.map(|bytes| prost_types::FileDescriptorSet::decode(bytes).unwrap_or_default());
    let mut found = Vec::new();
    for file in sets.iter().flat_map(|set| &set.file) {
        for service in &file.service {
            let of_service = |method: &prost_types::MethodDescriptorProto| {
                format!("{}.{}/{}", file.package(), service.name(), method.name())
            };
            found.extend(service.method.iter().map(of_service));
        }
    }
    found
}
