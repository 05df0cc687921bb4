//! A server that runs as a child process of `demo` or `bench`, with a separate store. The parent process calls it through its
//! port.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::process::Command;
use tonic::transport::{Channel, Endpoint};

use crate::files::{create_private_directory, remove_if_present};
use crate::model::{Clock, SystemClock, Timestamp};
use crate::proto::v1::task_service_client::TaskServiceClient;

/// Result of `demo` and `bench`, which only print their errors.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Time until the server accepts connections, including the recovery of a large store.
const START_TIMEOUT: Duration = Duration::from_mins(2);
const READY_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Bytes of the server's log that an error shows.
const LOG_TAIL_BYTES: usize = 2_000;
/// Flow-control windows, large enough that a watch or a batch never waits for a window update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// A running server. It is killed when this is dropped.
#[derive(Debug)]
pub struct ServerProcess {
    process: tokio::process::Child,
    address: String,
    log: PathBuf,
    spawned_at: Timestamp,
}

impl ServerProcess {
    /// Starts `serve` of the program on a free port, with its data and its log in `directory`, and waits until it is ready.
    /// A server that is started in the same directory again has the same data.
    ///
    /// # Errors
    /// If the server cannot be started, exits early, or is not ready within the time limit; the error contains the end
    /// of the server's log.
    pub async fn start(program: &Path, directory: &Path, config: &str) -> Result<Self> {
        Self::spawn(directory, config, Command::new(program)).await
    }

    /// Like [`start`](Self::start), with these `OTEL_*` variables instead of the ones of this process.
    pub async fn start_with_telemetry(
        program: &Path,
        directory: &Path,
        config: &str,
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"OTEL_")) {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        Self::spawn(directory, config, command).await
    }

    async fn spawn(directory: &Path, config: &str, mut command: Command) -> Result<Self> {
        let config_file = directory.join("lineshaft.toml");
        let ready_file = directory.join("ready");
        let log = directory.join("server.log");
        fs::write(&config_file, config)?;
        remove_if_present(&ready_file)?;
        let log_file = File::options().create(true).append(true).open(&log)?;
        let spawned_at = SystemClock.now();
        end_with_this_process(&mut command);
        let mut process = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.join("data"))
            .arg("--config")
            .arg(&config_file)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()?;
        let started = Instant::now();
        loop {
            if let Some(address) = read_if_exists(&ready_file)? {
                return Ok(Self { process, address: address.trim().to_owned(), log, spawned_at });
            }
            if let Some(status) = process.try_wait()? {
                return Err(format!("the server exited during its start ({status}); its log:\n{}", tail(&log)).into());
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(
                    format!("the server was not ready within {START_TIMEOUT:?}; its log:\n{}", tail(&log)).into()
                );
            }
            tokio::time::sleep(READY_POLL_INTERVAL).await;
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Wall time just before the process was spawned.
    pub fn spawned_at(&self) -> Timestamp {
        self.spawned_at
    }

    pub fn resident_bytes(&self) -> Result<u64> {
        let pid = self.process.id().ok_or("the server has exited")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/PID/status")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// CPU time of the threads that are running now.
    pub fn cpu_time(&self) -> Result<Duration> {
        let pid = self.process.id().ok_or("the server has exited")?;
        let mut total = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may have ended since the directory was read.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            total += Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?);
        }
        Ok(total)
    }

    /// Opens a new connection.
    pub async fn connect(&self) -> Result<Channel> {
        connect(&self.address).await
    }

    /// Kills the server with SIGKILL, as a crash would, and waits for its end.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Waits until the server exits.
    ///
    /// # Errors
    /// If it does not exit within `timeout`; the error contains the end of the server's log.
    pub async fn wait(mut self, timeout: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(timeout, self.process.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(format!("the server did not exit within {timeout:?}; its log:\n{}", tail(&self.log)).into()),
        }
    }
}

/// Also when this process is killed, so that no server is left behind.
#[expect(unsafe_code, reason = "the only way to run code between fork and exec")]
fn end_with_this_process(command: &mut Command) {
    let prepare = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: the closure makes one system call, without allocation or locks.
    unsafe { command.pre_exec(prepare) };
}

/// Connects to `host:port` with large flow-control windows.
pub async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(endpoint.connect().await?)
}

pub fn task_client(channel: Channel) -> TaskServiceClient<Channel> {
    TaskServiceClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

/// A temporary directory. It is removed when this is dropped, unless `keep` was set.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
    keep: bool,
}

impl ScratchDir {
    pub fn new(parent: &Path, keep: bool) -> io::Result<Self> {
        let path = parent.join(format!("lineshaft-{}", uuid::Uuid::now_v7().simple()));
        create_private_directory(&path)?;
        Ok(Self { path: fs::canonicalize(path)?, keep })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn read_if_exists(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
}
