//! The server: every layer between a connection and the gRPC services, in order.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::{ServiceBuilder, ServiceExt};

use crate::model::{MemoryAccount, limits};
use crate::proto::v1::artifact_service_server::ArtifactServiceServer;
use crate::proto::v1::batch_service_server::BatchServiceServer;
use crate::proto::v1::handler_service_server::HandlerServiceServer;
use crate::proto::v1::pool_service_server::PoolServiceServer;
use crate::proto::v1::schedule_service_server::ScheduleServiceServer;
use crate::proto::v1::system_service_server::SystemServiceServer;
use crate::proto::v1::task_service_server::TaskServiceServer;
use crate::proto::v1::worker_service_server::WorkerServiceServer;
use crate::scheduler::Handle;
use crate::telemetry::Telemetry;
use crate::telemetry::host::HostReading;
use crate::telemetry::metrics::CallMeter;
use crate::telemetry::panics;

use super::admin;
use super::auth::{AccessControl, CallerExtractor};
use super::http::{self, Calls, Contract, Front, Origins};
use super::listener::accept::{self, ListenerOptions};
use super::listener::admission::AdmissionPolicy;
use super::listener::connection::ConnectionOptions;
use super::middleware::admission::AdmissionControl;
use super::middleware::authentication::AuthenticationLayer;
use super::middleware::body_timeout::BodyTimeoutLayer;
use super::middleware::call_metrics::CallMetricsLayer;
use super::middleware::call_slots::CallSlots;
use super::middleware::call_trace::CallTraceLayer;
use super::middleware::catch_panic::CatchPanicLayer;
use super::middleware::deadline::DeadlineLayer;
use super::middleware::error_mapping::ErrorMappingLayer;
use super::middleware::load_shed::LoadShedLayer;
use super::middleware::public_calls::PublicCallsLayer;
use super::middleware::public_places::{PUBLIC_BYTES_MAX, PublicPlaces};
use super::middleware::request_memory::RequestMemoryLayer;
use super::security::Security;
use super::services::artifacts::{self, ArtifactLists};
use super::services::batches::Batches;
use super::services::handlers::Handlers;
use super::services::health::HealthService;
use super::services::keda;
use super::services::pool_history::PoolHistory;
use super::services::pools::Pools;
use super::services::schedules::Schedules;
use super::services::system::System;
use super::services::tasks::Tasks;
use super::services::workers::Workers;

/// Settings of the server.
#[derive(Clone)]
pub struct Options {
    pub connections: ConnectionOptions,
    /// Limit for receiving the body of a request that is not a stream.
    pub body_timeout: Duration,
    /// Origins of web pages that may call, such as `https://tasks.example.com`; `*` allows all.
    pub allowed_origins: Vec<String>,
    /// Names of this server that clients may use besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// Calls in flight in the whole server. A call beyond it is refused with OVERLOADED.
    pub max_in_flight: usize,
    /// Open watches, waits and streams in the whole server.
    pub max_open_streams: usize,
    pub instance: String,
    /// URL of a trace, with `{trace_id}` in the place of its ID; empty if none is configured.
    pub trace_url: String,
    /// Reads the health of the machine and of the process.
    pub host: HostReading,
    pub telemetry: Telemetry,
    pub memory: MemoryAccount,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The reflection service cannot read the descriptors.
    #[error("failed to build the reflection service: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The JSON mapping cannot read the descriptors.
    #[error("failed to read the descriptors: {0}")]
    Contract(#[from] prost_reflect::DescriptorError),
}

/// Serves the health port until `stop`.
pub async fn serve_health(
    listener: TcpListener,
    options: Options,
    scheduler: admin::health::SchedulerCell,
    stop: CancellationToken,
) {
    admin::health::serve(listener, sources(&options), scheduler, stop).await;
}

/// Serves the main port until `stop`, and at most a few seconds longer.
///
/// A drain ends all streams, so it should start before `stop`.
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
    security.spawn(handle.clone(), stop.clone());
    let access = AccessControl::new(security.authenticator.clone());
    let slots = CallSlots::new(options.max_in_flight, options.max_open_streams);
    let public = PublicPlaces::default();
    // From the outermost layer to the innermost.
    let calls = ServiceBuilder::new()
        // First, so that the log messages and metrics of all other layers belong to the trace of the call.
        .layer(CallTraceLayer)
        // Before all layers that refuse calls or end them, so that it counts the status that the caller gets.
        .layer(CallMetricsLayer(CallMeter::new(&options.telemetry.metrics, methods())))
        // Before authentication and load shedding, which public calls do not need.
        .layer(PublicCallsLayer { places: public.clone(), all: false })
        // Before load shedding, so that callers without permission take no slots.
        .layer(AuthenticationLayer(access.clone()))
        // Before all layers that wait, so that a call beyond the limit is refused at once.
        .layer(LoadShedLayer { slots: slots.clone(), memory: options.memory.clone() })
        // Around everything that takes time: receiving the request, the service, and the response body.
        .layer(DeadlineLayer)
        // Inside the deadline, because the shorter of the two applies.
        .layer(BodyTimeoutLayer(options.body_timeout))
        // Counts only bodies of admitted calls.
        .layer(RequestMemoryLayer(options.memory.clone()))
        // Around all code of the services. The layers above see INTERNAL and clean up as after any other error.
        .layer(CatchPanicLayer)
        // Last, so that it sees the errors of tonic only. All layers above return errors of the contract.
        .layer(ErrorMappingLayer)
        .service(services(&options, &handle, security.authenticator.is_some(), &stop)?);
    // JSON, gRPC-Web and the plain routes become calls of the same stack.
    let loopback = ServiceExt::<Request<Body>>::map_response(calls.clone(), |response| response.map(Body::new));
    let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let routes = http::Routes {
        context: http::Context {
            calls: Calls::new(loopback),
            admission: AdmissionControl::new(access, slots, public),
            contract: Arc::new(Contract::new()?),
            body_timeout: options.body_timeout,
            memory: options.memory.clone(),
            payload_limit: handle.catalog().payload_limit,
        },
        origins: Origins {
            allowed: options.allowed_origins.clone(),
            // A server that the network can reach has names that it does not know, unless they are configured.
            check_host: is_loopback || !options.hosts.is_empty(),
            hosts: options.hosts.clone(),
        },
        health: sources(&options),
        open_link: artifacts::links(handle.clone()),
    };
    let listener_options = ListenerOptions {
        name: "main",
        admission: AdmissionPolicy::Refuse(security.connection_limit.clone()),
        tls: security.tls.clone(),
        connections: options.connections,
    };
    accept::serve(listener, listener_options, Front::new(calls, routes), stop).await;
    Ok(())
}

fn services(
    options: &Options,
    handle: &Handle,
    requires_identity: bool,
    stop: &CancellationToken,
) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure();
        let builder = builder.register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS);
        let builder = builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        // The details of errors.
        builder.register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let callers = CallerExtractor::new(requires_identity);
    let tasks = TaskServiceServer::new(Tasks::new(handle.clone(), callers));
    let history = PoolHistory::default();
    tokio::spawn(panics::essential(history.clone().run(handle.clone(), stop.clone())));
    let Options { host, instance, trace_url, telemetry, .. } = options.clone();
    let pools = Pools::new(handle.clone(), host.clone(), telemetry.gauges, history, callers);
    let system = System::new(handle.clone(), host, instance, trace_url, callers);
    let workers = Workers::new(handle.clone(), callers);
    let health = HealthService::new(options.telemetry.liveness.clone(), stop.clone());
    let message_bytes = handle.catalog().payload_limit.message_bytes();
    Ok(Routes::new(tasks.max_decoding_message_size(message_bytes))
        .add_service(ArtifactServiceServer::new(ArtifactLists::new(handle.clone(), callers)))
        .add_service(BatchServiceServer::new(Batches::new(handle.clone(), callers)))
        .add_service(ScheduleServiceServer::new(Schedules::new(handle.clone(), callers)))
        .add_service(PoolServiceServer::new(pools))
        .add_service(HandlerServiceServer::new(Handlers::new(handle.clone(), callers)))
        .add_service(SystemServiceServer::new(system))
        .add_service(WorkerServiceServer::new(workers).max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
        .add_service(keda::service(handle.clone()))
        .add_service(HealthServer::new(health).max_decoding_message_size(PUBLIC_BYTES_MAX))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare())
}

/// What the health pages show.
fn sources(options: &Options) -> http::health::Sources {
    let Options { telemetry, host, instance, memory, .. } = options.clone();
    http::health::Sources { telemetry, host, instance, memory }
}

/// All methods with metrics, as `package.Service/Method`.
fn methods() -> Vec<String> {
    let sets = [crate::proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let sets = sets.map(|bytes| prost_types::FileDescriptorSet::decode(bytes).unwrap_or_default());
    let mut methods = Vec::new();
    for file in sets.iter().flat_map(|set| &set.file) {
        for service in &file.service {
            let name = |method: &prost_types::MethodDescriptorProto| {
                format!("{}.{}/{}", file.package(), service.name(), method.name())
            };
            methods.extend(service.method.iter().map(name));
        }
    }
    methods
}
