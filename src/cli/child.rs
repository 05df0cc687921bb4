//! A server of one's own: started from this very binary as a child process, spoken to through its port.
//!
//! `demo` and `bench` use nothing but the contract; this is how they get somebody to talk to.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tonic::transport::{Channel, Endpoint};

use crate::model::{Clock, SystemClock, Timestamp};

/// What a command that talks to people ends with when it cannot go on.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How long a server may take until it accepts connections; recovery of a large store included.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// Bytes of the server's log that are shown when it fails.
const LOG_SHOWN_BYTES: usize = 2_000;
/// Flow-control windows: large enough that a watch or batch never waits for a window update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    address: String,
    log: PathBuf,
    spawned_at: Timestamp,
}

impl Child {
    /// Starts `serve` on a free port with its data and log in `directory`, and waits until it is ready.
    /// The same directory again finds the same data.
    ///
    /// # Errors
    /// When it cannot be started, ends early, or is not ready in time; with the end of its log.
    pub async fn start(directory: &Path, config: &str) -> Result<Self> {
        Self::spawn(directory, config, Command::new(std::env::current_exe()?)).await
    }

    /// The same, with these variables for its telemetry instead of those that this process has.
    ///
    /// # Errors
    /// When it cannot be started, ends early, or is not ready in time; with the end of its log.
    pub async fn start_telling(directory: &Path, config: &str, variables: &[(&str, String)]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
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
        remove_if_there(&ready_file)?;
        let log_file = File::options().create(true).append(true).open(&log)?;
        let spawned_at = SystemClock.now();
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
        let began = Instant::now();
        loop {
            if let Some(address) = read_if_there(&ready_file)? {
                return Ok(Self { process, address: address.trim().to_owned(), log, spawned_at });
            }
            if let Some(status) = process.try_wait()? {
                return Err(format!("the server ended at once ({status}); its log:\n{}", tail(&log)).into());
            }
            if began.elapsed() > READY_WITHIN {
                return Err(
                    format!("the server was not ready within {READY_WITHIN:?}; its log:\n{}", tail(&log)).into()
                );
            }
            // A file has no event that could be awaited here.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Wall time just before it was started.
    pub fn spawned_at(&self) -> Timestamp {
        self.spawned_at
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn resident_bytes(&self) -> Result<u64> {
        let pid = self.process.id().ok_or("the server has ended")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in its status")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Time that its threads have had a processor.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn processor_time(&self) -> Result<Duration> {
        let pid = self.process.id().ok_or("the server has ended")?;
        let mut total = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // One that has ended meanwhile is not counted.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            total += Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?);
        }
        Ok(total)
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn connect(&self) -> Result<Channel> {
        connect(&self.address).await
    }

    /// Kills it without warning, as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// When it has not ended in time; with the end of its log.
    pub async fn ended(mut self, within: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(within, self.process.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(format!("the server did not end within {within:?}; its log:\n{}", tail(&self.log)).into()),
        }
    }
}

/// A connection to `host:port` with wide windows and no delay.
///
/// # Errors
/// When it cannot be opened.
pub async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(endpoint.connect().await?)
}

/// A client of the tasks over a connection.
pub fn tasks(channel: Channel) -> crate::proto::v1::task_service_client::TaskServiceClient<Channel> {
    crate::proto::v1::task_service_client::TaskServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// A directory that is removed with its contents when it is dropped, unless it is kept.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes a directory with a name of its own in `parent`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(parent: &Path, keep: bool) -> io::Result<Self> {
        let path = parent.join(format!("lineshaft-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir_all(&path)?;
        Ok(Self { path: fs::canonicalize(path)?, keep })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_SHOWN_BYTES)..]).into_owned()
}

/// Microseconds since the epoch of a time on the wire; 0 when it is not set.
pub fn micros(time: Option<&prost_types::Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000)
}

/// A span for the wire.
pub fn span(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
