//! The listener and everything around the services: bounds that the framework leaves off.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::HealthServer;

use crate::model::limits;
use crate::proto::v1::handler_service_server::HandlerServiceServer;
use crate::proto::v1::pool_service_server::PoolServiceServer;
use crate::proto::v1::system_service_server::SystemServiceServer;
use crate::proto::v1::task_service_server::TaskServiceServer;
use crate::scheduler::Handle;
use crate::telemetry::host::HostHealth;

use super::handlers::Handlers;
use super::health::Probe;
use super::load::LoadLayer;
use super::pools::Pools;
use super::system::System;
use super::tasks::Tasks;

/// Reads the machine's and the process's health.
pub type HostReading = Arc<dyn Fn() -> HostHealth + Send + Sync>;

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
    /// Calls under way in the whole server; beyond, callers get OVERLOADED.
    pub max_in_flight: usize,
    /// Identity of this run of the server.
    pub instance: String,
    /// Reads the machine's and the process's health.
    pub host: HostReading,
}

/// Why the edge ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The reflection service cannot read the contract.
    #[error("failed to build reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("failed to serve: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `stop`.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    options: Options,
    handle: Handle,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure();
        let builder = builder.register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS);
        builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reflection_v1, reflection_v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let tasks = TaskServiceServer::new(Tasks::new(handle.clone()))
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let pools = PoolServiceServer::new(Pools::new(handle.clone(), options.host.clone()));
    let system = SystemServiceServer::new(System::new(handle.clone(), options.host, options.instance));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .max_concurrent_streams(options.max_concurrent_streams)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .max_connection_age(options.connection_age)
        .max_connection_age_grace(options.connection_age_grace)
        .layer(LoadLayer::new(options.max_in_flight))
        .add_service(tasks)
        .add_service(pools)
        .add_service(HandlerServiceServer::new(Handlers::new(handle.clone())))
        .add_service(system)
        .add_service(HealthServer::new(Probe::new(handle)))
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}
