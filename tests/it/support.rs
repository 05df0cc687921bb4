//! A server of the test's own, and what tests say to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lineshaft::proto::v1::{
    self, handler_service_client::HandlerServiceClient, payload::Kind, pool_service_client::PoolServiceClient,
    system_service_client::SystemServiceClient, task_service_client::TaskServiceClient,
};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// How long anything may take that is awaited; generous, because machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const BINARY: &str = env!("CARGO_BIN_EXE_lineshaft");

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: String,
    pub directory: TempDir,
    /// For the many small calls of the helpers; watches get connections of their own.
    steady: OnceLock<Channel>,
    variables: Vec<(String, String)>,
}

/// For a server that keeps nothing.
pub const IN_MEMORY: (&str, &str) = ("LINESHAFT_STORE__MEMORY", "true");

fn launch(directory: &Path, variables: &[(String, String)]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the server itself")]
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    if !variables.iter().any(|(name, _)| name == IN_MEMORY.0) {
        command.arg("--data-dir").arg(directory.join("data"));
    }
    command
        .arg("--config")
        .arg(directory.join("config.toml"))
        .arg("--ready-file")
        .arg(directory.join("ready"))
        .stdin(Stdio::null())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Starts the binary on a directory.
fn spawn(directory: &Path, variables: &[(String, String)]) -> (Child, String) {
    let ready = directory.join("ready");
    // Left by the server before, if there was one.
    let _ = std::fs::remove_file(&ready);
    let mut child = launch(directory, variables);
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(address) = std::fs::read_to_string(&ready) {
            return (child, address.trim().to_owned());
        }
        let log = || std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "the server ended at once: {}", log());
        assert!(Instant::now() < until, "the server is not ready: {}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Server {
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// With variables of its environment.
    pub fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::launched(tempfile::tempdir().unwrap(), config, variables)
    }

    /// In a directory that something was done to.
    pub fn start_in(directory: TempDir, config: &str) -> Self {
        Self::launched(directory, config, &[])
    }

    fn launched(directory: TempDir, config: &str, variables: &[(&str, &str)]) -> Self {
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let (child, address) = spawn(directory.path(), &variables);
        Self { child, address, directory, steady: OnceLock::new(), variables }
    }

    /// What a server says that cannot start.
    pub fn refused(config: &str, variables: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let child = launch(directory.path(), &variables);
        let mut server = Self { child, address: String::new(), directory, steady: OnceLock::new(), variables };
        let status = server.wait_exit();
        assert!(matches!(status.code(), Some(1 | 2)), "{status}: {}", server.log());
        server.log()
    }

    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same directory again, where it cannot start; what it says.
    pub fn fail_to_start_again(&mut self) -> String {
        let before = self.log().len();
        self.child = launch(self.directory.path(), &self.variables);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(1), "{}", self.log());
        self.log().split_off(before)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The same directory again.
    pub fn start_again(&mut self) {
        (self.child, self.address) = spawn(self.directory.path(), &self.variables);
        self.steady = OnceLock::new();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the server does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    pub fn tasks(&self) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel()).max_encoding_message_size(64 << 20).max_decoding_message_size(64 << 20)
    }

    fn helper(&self) -> TaskServiceClient<Channel> {
        let channel = self.steady.get_or_init(|| self.channel()).clone();
        TaskServiceClient::new(channel).max_decoding_message_size(64 << 20)
    }

    pub fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel())
    }

    pub fn handlers(&self) -> HandlerServiceClient<Channel> {
        HandlerServiceClient::new(self.channel())
    }

    pub fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel())
    }

    pub async fn submit(&self, request: v1::SubmitTaskRequest) -> String {
        self.helper().submit_task(request).await.unwrap().into_inner().task_id
    }

    pub async fn get(&self, id: &str) -> v1::Task {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), include_payload: true };
        self.helper().get_task(request).await.unwrap().into_inner().task.unwrap()
    }

    /// The task, once it has ended.
    pub async fn ended(&self, id: &str) -> v1::Task {
        let until = Instant::now() + PATIENCE;
        loop {
            let request = v1::WaitTaskRequest { task_id: id.to_owned(), timeout: None };
            let answer = self.helper().wait_task(request).await.unwrap().into_inner();
            if answer.finished {
                return answer.task.unwrap();
            }
            assert!(Instant::now() < until, "{id} does not end: {:?}", answer.task);
        }
    }

    /// Waits until the task is in the state.
    pub async fn until(&self, id: &str, state: v1::TaskState) -> v1::Task {
        let until = Instant::now() + PATIENCE;
        loop {
            let task = self.get(id).await;
            if task.state() == state {
                return task;
            }
            assert!(Instant::now() < until, "{id} is never {state:?}: {task:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the task has changed after a revision and is in one of the states.
    pub async fn changed_to(&self, id: &str, after: u64, states: &[v1::TaskState]) -> v1::Task {
        let until = Instant::now() + PATIENCE;
        loop {
            let task = self.get(id).await;
            if task.revision > after && states.contains(&task.state()) {
                return task;
            }
            assert!(Instant::now() < until, "{id} is never one of {states:?}: {task:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the task has been started, if only for a moment.
    pub async fn until_begun(&self, id: &str) {
        let until = Instant::now() + PATIENCE;
        while self.get(id).await.started_at.is_none() {
            assert!(Instant::now() < until, "{id} is never started");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn pause(&self, pool: &str, paused: bool) -> v1::Pool {
        let request =
            v1::UpdatePoolRequest { name: pool.to_owned(), paused: Some(paused), ..v1::UpdatePoolRequest::default() };
        self.pools().update_pool(request).await.unwrap().into_inner().pool.unwrap()
    }
}

/// Runs the calling test once more, alone and in namespaces of its own (`mount`, `net`), where it may do
/// what needs root. True in there; outside the test is over.
pub fn isolated(test: &str, namespaces: &[&str]) -> bool {
    const INSIDE: &str = "LINESHAFT_TEST_ISOLATED";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let kinds: Vec<String> = namespaces.iter().map(|kind| format!("--{kind}")).collect();
    let user = ["--user".to_owned(), "--map-root-user".to_owned()];
    let may = |flags: &[String]| run("unshare", flags.iter().map(String::as_str).chain(["true"])).0;
    // Without root a user namespace does as well, where the system has them.
    let flags = if may(&kinds) { kinds } else { [&user[..], &kinds[..]].concat() };
    assert!(may(&flags), "this test needs root, or user namespaces: `unshare {}`", flags.join(" "));
    // What is mounted in there can only be removed out here.
    let scratch = tempfile::tempdir().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test itself")]
    let status = Command::new("unshare")
        .args(&flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env("TMPDIR", scratch.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
    false
}

/// Runs a program; whether it succeeded, and what it said.
pub fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> (bool, String) {
    #[expect(clippy::disallowed_methods, reason = "tools of the system")]
    let output = Command::new(program).args(args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A process that does not outlive its test.
pub struct Mortal(pub Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A task with a JSON payload.
pub fn task(handler: &str, json: &str) -> v1::SubmitTaskRequest {
    let kind = Some(Kind::Data(json.to_owned().into()));
    let payload = Some(v1::Payload { kind, content_type: "application/json".to_owned() });
    v1::SubmitTaskRequest { handler: handler.to_owned(), payload, ..v1::SubmitTaskRequest::default() }
}

pub fn noop() -> v1::SubmitTaskRequest {
    task("compute", "0")
}

/// The bytes of a payload or result.
pub fn bytes(payload: Option<&v1::Payload>) -> String {
    match payload.and_then(|payload| payload.kind.as_ref()) {
        Some(Kind::Data(data)) => String::from_utf8_lossy(data).into_owned(),
        other => panic!("no bytes: {other:?}"),
    }
}

/// `ErrorInfo.reason`.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "lineshaft.dev");
    info.reason.clone()
}

/// The fields of a BadRequest.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
    violations.map(|violation| violation.field.clone()).collect()
}

pub fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: i64::from(millis / 1_000), nanos: millis % 1_000 * 1_000_000 })
}
