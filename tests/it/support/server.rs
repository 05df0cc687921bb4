//! The server under test.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use lineshaft::proto::v1::{
    self, handler_service_client::HandlerServiceClient, pool_service_client::PoolServiceClient,
    schedule_service_client::ScheduleServiceClient, system_service_client::SystemServiceClient,
    task_service_client::TaskServiceClient, worker_service_client::WorkerServiceClient,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::{ControlGroup, check, eventually, eventually_blocking};

pub const BINARY: &str = env!("CARGO_BIN_EXE_lineshaft");

/// A server process with its data directory; killed when dropped.
pub struct Server {
    child: Child,
    pub address: String,
    pub directory: TempDir,
    /// Shared by the short calls of the helpers; watches get their own connections.
    channel: OnceLock<Channel>,
    variables: Vec<(String, String)>,
    /// A program and its arguments that start the server; empty if it is started directly.
    wrapper: Vec<String>,
}

/// Variable that makes a server keep its data in memory.
pub const IN_MEMORY: (&str, &str) = ("LINESHAFT_STORE__MEMORY", "true");

fn launch(directory: &Path, variables: &[(String, String)], wrapper: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let words: Vec<&str> = wrapper.iter().map(String::as_str).chain([BINARY, "serve"]).collect();
    #[expect(clippy::disallowed_methods, reason = "starts the binary under test")]
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--listen", "127.0.0.1:0"]);
    if !variables.iter().any(|(name, _)| name == IN_MEMORY.0) {
        command.arg("--data-dir").arg(directory.join("data"));
    }
    command
        .arg("--config")
        .arg(directory.join("config.toml"))
        .arg("--ready-file")
        .arg(directory.join("server-ready"))
        .stdin(Stdio::null())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Starts the server and waits for its address.
fn spawn(directory: &Path, variables: &[(String, String)], wrapper: &[String]) -> (Child, String) {
    let ready = directory.join("server-ready");
    // Left over from a previous server.
    let _ = std::fs::remove_file(&ready);
    let mut child = launch(directory, variables, wrapper);
    let address = eventually_blocking(|| {
        if let Ok(address) = std::fs::read_to_string(&ready) {
            return Ok(address.trim().to_owned());
        }
        let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "the server exited during its start: {log}");
        Err(format!("the server is not ready: {log}"))
    });
    (child, address)
}

impl Server {
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// Starts a server with environment variables.
    pub fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::launch_in(tempfile::tempdir().unwrap(), config, variables, &[])
    }

    /// Starts a server in a control group, if one is given. A process that starts there has all its memory counted.
    pub fn start_limited(config: &str, group: Option<&ControlGroup>) -> Self {
        let Some(group) = group else { return Self::start(config) };
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        Self::start_under(&["/bin/sh", "-c", enter, group.path().to_str().unwrap()], config)
    }

    /// Starts a server by means of another program, such as `env` or `unshare`.
    pub fn start_under(wrapper: &[&str], config: &str) -> Self {
        Self::launch_in(tempfile::tempdir().unwrap(), config, &[], wrapper)
    }

    /// Starts a server by means of another program, in a directory that other users may enter.
    pub fn start_for_users(wrapper: &[&str], config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
        Self::launch_in(directory, config, &[], wrapper)
    }

    /// Starts a server on an existing directory.
    pub fn start_in(directory: TempDir, config: &str) -> Self {
        Self::launch_in(directory, config, &[], &[])
    }

    /// Starts a server on an existing directory, with environment variables.
    pub fn start_in_with(directory: TempDir, config: &str, variables: &[(&str, &str)]) -> Self {
        Self::launch_in(directory, config, variables, &[])
    }

    fn launch_in(directory: TempDir, config: &str, variables: &[(&str, &str)], wrapper: &[&str]) -> Self {
        let wrapper: Vec<_> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let (child, address) = spawn(directory.path(), &variables, &wrapper);
        Self { child, address, directory, channel: OnceLock::new(), variables, wrapper }
    }

    /// The log of a server that fails to start.
    pub fn fail_to_start(config: &str, variables: &[(&str, &str)]) -> String {
        Self::fail_to_start_under(&[], config, variables)
    }

    /// The log of a server that is started by means of another program, and fails to start.
    pub fn fail_to_start_under(wrapper: &[&str], config: &str, variables: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        Self::fail_to_start_in(directory, wrapper, config, variables)
    }

    /// The log of a server that fails to start on an existing directory.
    pub fn fail_to_start_in(directory: TempDir, wrapper: &[&str], config: &str, variables: &[(&str, &str)]) -> String {
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let wrapper: Vec<_> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        let child = launch(directory.path(), &variables, &wrapper);
        let (address, channel) = (String::new(), OnceLock::new());
        let mut server = Self { child, address, directory, channel, variables, wrapper };
        let status = server.wait_exit();
        assert!(matches!(status.code(), Some(1 | 2)), "{status}: {}", server.log());
        server.log()
    }

    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again, expects that it fails, and returns what it logged.
    pub fn fail_to_start_again(&mut self) -> String {
        let before = self.log().len();
        self.child = launch(self.directory.path(), &self.variables, &self.wrapper);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(1), "{}", self.log());
        self.log().split_off(before)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory that the process has resident now, without the pages of its program, which are in a file.
    pub fn memory_used(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// The most memory that the process has had resident so far, without the pages of its program, which are in a file.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:") - self.memory("RssFile:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Starts the server again on the same directory.
    pub fn start_again(&mut self) {
        (self.child, self.address) = spawn(self.directory.path(), &self.variables, &self.wrapper);
        self.channel = OnceLock::new();
    }

    /// Starts the server again on the same directory. Returns false if it is killed before it is ready.
    pub fn start_again_unless_killed(&mut self) -> bool {
        let ready = self.path("server-ready");
        let _ = std::fs::remove_file(&ready);
        self.child = launch(self.directory.path(), &self.variables, &self.wrapper);
        self.channel = OnceLock::new();
        eventually_blocking(|| {
            if let Ok(address) = std::fs::read_to_string(&ready) {
                address.trim().clone_into(&mut self.address);
                return Ok(true);
            }
            if self.has_exited() { Ok(false) } else { Err("the server is not ready".to_owned()) }
        })
    }

    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        eventually_blocking(|| {
            let status = self.child.try_wait().unwrap();
            status.ok_or_else(|| format!("the server does not exit: {}", self.log()))
        })
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until the log contains the text.
    pub async fn wait_logged(&self, text: &str) {
        eventually(async || check(self.log().contains(text), || format!("{text:?} is not logged: {}", self.log())))
            .await;
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
        let channel = self.channel.get_or_init(|| self.channel()).clone();
        TaskServiceClient::new(channel).max_decoding_message_size(64 << 20)
    }

    pub fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel())
    }

    pub fn schedules(&self) -> ScheduleServiceClient<Channel> {
        ScheduleServiceClient::new(self.channel())
    }

    pub fn workers(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel())
    }

    pub fn handlers(&self) -> HandlerServiceClient<Channel> {
        HandlerServiceClient::new(self.channel())
    }

    pub fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel())
    }

    /// Token for a watch of every event that the server still has.
    pub async fn oldest_token(&self) -> String {
        let info = self.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
        info.oldest_resume_token
    }

    pub async fn submit(&self, request: v1::SubmitTaskRequest) -> String {
        self.helper().submit_task(request).await.unwrap().into_inner().task_id
    }

    pub async fn get(&self, id: &str) -> v1::Task {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), include_payload: true, ..Default::default() };
        self.helper().get_task(request).await.unwrap().into_inner().task.unwrap()
    }

    /// Waits until the task is in a terminal state.
    pub async fn wait_finished(&self, id: &str) -> v1::Task {
        eventually(async || {
            let request = v1::WaitTaskRequest { task_id: id.to_owned(), timeout: None };
            let response = self.helper().wait_task(request).await.unwrap().into_inner();
            let task = response.task.unwrap();
            if response.finished { Ok(task) } else { Err(format!("{id} is still {:?}", task.state())) }
        })
        .await
    }

    /// Waits until the task is in the state.
    pub async fn wait_for_state(&self, id: &str, state: v1::TaskState) -> v1::Task {
        self.wait_for_change(id, 0, &[state]).await
    }

    /// Waits until the task has changed after a revision and is in one of the states.
    pub async fn wait_for_change(&self, id: &str, after: u64, states: &[v1::TaskState]) -> v1::Task {
        eventually(async || {
            let task = self.get(id).await;
            let reached = task.revision > after && states.contains(&task.state());
            if reached { Ok(task) } else { Err(format!("{id} is not one of {states:?}: {task:?}")) }
        })
        .await
    }

    /// Waits until the task has started at least once.
    pub async fn wait_started(&self, id: &str) {
        eventually(async || check(self.get(id).await.started_at.is_some(), || format!("{id} has not started"))).await;
    }

    pub async fn set_paused(&self, pool: &str, paused: bool) -> v1::Pool {
        let request =
            v1::UpdatePoolRequest { name: pool.to_owned(), paused: Some(paused), ..v1::UpdatePoolRequest::default() };
        self.pools().update_pool(request).await.unwrap().into_inner().pool.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
