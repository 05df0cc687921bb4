//! Strangers, tenants and those who try to be more than they are.

mod floods;
mod jwt;
mod limits;
mod plain;
mod roles;
pub mod tls;
mod walls;

use std::process::{Command, Output};

use lineshaft::proto::v1::{
    handler_service_client::HandlerServiceClient, pool_service_client::PoolServiceClient,
    system_service_client::SystemServiceClient, task_service_client::TaskServiceClient,
};
use tempfile::TempDir;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::support::{BINARY, Server};

/// The command line.
fn lineshaft(arguments: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "the command line itself")]
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A file of tokens.
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

    /// Makes a token as a person would.
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

    /// A server that knows them.
    fn serve(&self, more: &str) -> Server {
        Server::start(&format!("[auth]\ntokens_file = {:?}\n{more}", self.path()))
    }
}

/// Calls with a token, or with none.
#[derive(Clone)]
struct As(Option<String>);

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        Ok(request)
    }
}

type Wire = InterceptedService<Channel, As>;

/// The services of a server, for one caller.
#[derive(Clone)]
struct Known {
    wire: Wire,
}

impl Known {
    fn new(server: &Server, token: &str) -> Self {
        Self::over(server.channel(), Some(token))
    }

    fn over(channel: Channel, token: Option<&str>) -> Self {
        Self { wire: InterceptedService::new(channel, As(token.map(str::to_owned))) }
    }

    fn tasks(&self) -> TaskServiceClient<Wire> {
        TaskServiceClient::new(self.wire.clone())
    }

    fn pools(&self) -> PoolServiceClient<Wire> {
        PoolServiceClient::new(self.wire.clone())
    }

    fn handlers(&self) -> HandlerServiceClient<Wire> {
        HandlerServiceClient::new(self.wire.clone())
    }

    fn system(&self) -> SystemServiceClient<Wire> {
        SystemServiceClient::new(self.wire.clone())
    }
}
