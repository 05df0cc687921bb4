//! Authentication, permissions, isolation of namespaces, and limits on hostile clients.

mod all_attacks;
mod artifacts;
mod connection_limits;
mod fairness;
mod hints;
mod http_auth;
mod jwt;
mod limits;
mod namespace_isolation;
mod public_calls;
mod roles;
pub mod tls;
mod unread_requests;
mod unread_responses;

use std::process::{Command, Output};

use lineshaft::proto::v1::{
    artifact_service_client::ArtifactServiceClient, batch_service_client::BatchServiceClient,
    handler_service_client::HandlerServiceClient, pool_service_client::PoolServiceClient,
    schedule_service_client::ScheduleServiceClient, system_service_client::SystemServiceClient,
    task_service_client::TaskServiceClient, worker_service_client::WorkerServiceClient,
};
use tempfile::TempDir;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::support::{BINARY, ControlGroup, Server, check, eventually};

/// Runs the command line.
fn lineshaft(arguments: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits until the condition holds, such as after a changed file: the server polls its files every second.
async fn wait_until(mut condition: impl AsyncFnMut() -> bool, problem: &str) {
    eventually(async || check(condition().await, || problem.to_owned())).await;
}

/// A token file.
struct Tokens {
    directory: TempDir,
}

impl Tokens {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> String {
        self.directory.path().join("tokens.toml").display().to_string()
    }

    /// Creates a token with the command line.
    fn create(&self, name: &str, role: &str, namespace: &str, more: &[&str]) -> String {
        let path = self.path();
        let made = ["token", "create", name, "--role", role, "--namespace", namespace, "--file", &path];
        let output = lineshaft(&[&made, more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    fn revoke(&self, name: &str) {
        let output = lineshaft(&["token", "revoke", name, "--file", &self.path()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Starts a server that accepts the tokens.
    fn serve(&self, more: &str) -> Server {
        self.serve_limited(more, None)
    }

    /// Starts a server that accepts the tokens, in a control group if one is given.
    fn serve_limited(&self, more: &str, group: Option<&ControlGroup>) -> Server {
        Server::start_limited(&format!("[auth]\ntokens_file = {:?}\n{more}", self.path()), group)
    }
}

/// Adds a token to each call.
#[derive(Clone)]
struct WithToken(Option<String>);

impl Interceptor for WithToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        Ok(request)
    }
}

type Transport = InterceptedService<Channel, WithToken>;

/// Clients of one caller.
#[derive(Clone)]
struct Caller {
    transport: Transport,
}

impl Caller {
    fn new(server: &Server, token: &str) -> Self {
        Self::over(server.channel(), Some(token))
    }

    fn over(channel: Channel, token: Option<&str>) -> Self {
        Self { transport: InterceptedService::new(channel, WithToken(token.map(str::to_owned))) }
    }

    fn artifacts(&self) -> ArtifactServiceClient<Transport> {
        ArtifactServiceClient::new(self.transport.clone())
    }

    fn tasks(&self) -> TaskServiceClient<Transport> {
        TaskServiceClient::new(self.transport.clone())
    }

    fn schedules(&self) -> ScheduleServiceClient<Transport> {
        ScheduleServiceClient::new(self.transport.clone())
    }

    fn batches(&self) -> BatchServiceClient<Transport> {
        BatchServiceClient::new(self.transport.clone())
    }

    fn pools(&self) -> PoolServiceClient<Transport> {
        PoolServiceClient::new(self.transport.clone())
    }

    fn handlers(&self) -> HandlerServiceClient<Transport> {
        HandlerServiceClient::new(self.transport.clone())
    }

    fn workers(&self) -> WorkerServiceClient<Transport> {
        WorkerServiceClient::new(self.transport.clone())
    }

    fn system(&self) -> SystemServiceClient<Transport> {
        SystemServiceClient::new(self.transport.clone())
    }
}
