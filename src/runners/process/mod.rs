//! Runs programs that the operator has registered: never a shell unless the operator says so.
//!
//! Each attempt is a process group of its own with a clean environment, its own working directory and
//! the limits of its handler. Payload in on stdin, result out on stdout, log on stderr. When an attempt
//! is over, nothing of its group is left; see [`supervisor`] for what happens when the server is killed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{BoxFuture, Outcome, Run, Runner};

mod attempt;
pub mod limits;
mod spawn;
pub mod supervisor;
mod sys;
#[cfg(test)]
mod tests;

pub use limits::Limits;
pub use supervisor::{Supervisor, supervise_main};

/// Variable that marks every process of one server run.
pub const INSTANCE_VARIABLE: &str = "LINESHAFT_INSTANCE";
/// Variable with the task's id.
pub const TASK_VARIABLE: &str = "LINESHAFT_TASK_ID";
/// Variable with the attempt, 1 for the first.
pub const ATTEMPT_VARIABLE: &str = "LINESHAFT_ATTEMPT";
/// Where programs are looked for, and `PATH` of a process unless its handler sets another.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Nobody else may look into a working directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Empty working directories kept for later attempts.
const EMPTY_DIRECTORIES_MAX: usize = 64;

/// What of a process becomes the result of its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultFrom {
    /// Its standard output, with this content type.
    Stdout(Arc<str>),
    /// Nothing; standard output is a log only.
    Nothing,
}

impl Default for ResultFrom {
    fn default() -> Self {
        Self::Stdout(Arc::from("text/plain"))
    }
}

/// How a process handler runs, as the operator registered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Program and arguments; a program without `/` is looked for in `PATH`.
    pub argv: Vec<String>,
    /// Whether arguments of the submitter are added.
    pub accepts_args: bool,
    /// Variables of its environment.
    pub env: BTreeMap<String, String>,
    /// Variables taken over from the server's environment, where it has them.
    pub env_pass: Vec<String>,
    /// Where it runs; a fresh directory per attempt, removed afterwards, when not said.
    pub working_directory: Option<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// Time between SIGTERM and SIGKILL when whoever stops it does not say.
    pub grace: Duration,
    /// What becomes the result.
    pub result: ResultFrom,
}

/// Why a process handler cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No program.
    #[error("`argv` is empty, expected a program and its arguments")]
    NoProgram,
    /// A name that no environment can hold.
    #[error("`env` has the name {0:?}, which is empty or has `=` or a zero byte in it")]
    BadVariable(String),
    /// Set by the server itself.
    #[error("`env` has the name {0:?}; names that begin with LINESHAFT_ are set by the server")]
    ReservedVariable(String),
}

/// What all process handlers of one server run share.
#[derive(Debug)]
pub struct Host {
    instance: Box<str>,
    work: PathBuf,
    supervisor: Option<Supervisor>,
    /// Directories made so far: the name of the next one.
    directories: AtomicU64,
    /// Directories that are ready for an attempt.
    empty: Mutex<Vec<PathBuf>>,
}

impl Host {
    /// Prepares `state_dir/work`, and removes what an earlier server has left in it. So start the
    /// supervisor first: it makes sure that nobody uses those directories any more.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(state_dir: &Path, instance: &str, supervisor: Option<Supervisor>) -> io::Result<Self> {
        // Absolute, because a child changes into it.
        let work = std::path::absolute(state_dir)?.join("work");
        match std::fs::remove_dir_all(&work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&work)?,
        }
        Ok(Self {
            instance: instance.into(),
            work,
            supervisor,
            directories: AtomicU64::new(0),
            empty: Mutex::default(),
        })
    }

    /// Ends the supervisor and waits until no process of this server run is left. For a clean shutdown,
    /// after the last attempt.
    ///
    /// # Errors
    /// When the supervisor's end cannot be waited for.
    pub fn stop(self) -> io::Result<()> {
        self.supervisor.map_or(Ok(()), Supervisor::stop)
    }

    fn directory(&self) -> io::Result<Scratch<'_>> {
        if let Some(path) = self.empty.lock().pop() {
            return Ok(Scratch { path, host: self });
        }
        let number = self.directories.fetch_add(1, Ordering::Relaxed);
        let path = self.work.join(number.to_string());
        std::fs::DirBuilder::new().mode(DIRECTORY_MODE).create(&path)?;
        Ok(Scratch { path, host: self })
    }
}

/// The working directory of one attempt. Removed with its contents when it is dropped; one that is as
/// it was is kept for another attempt, because making directories can cost more than starting a process.
#[derive(Debug)]
struct Scratch<'host> {
    path: PathBuf,
    host: &'host Host,
}

impl Scratch<'_> {
    fn is_as_new(&self) -> bool {
        let same = |kind: std::fs::Metadata| kind.is_dir() && kind.permissions().mode() & 0o7777 == DIRECTORY_MODE;
        std::fs::symlink_metadata(&self.path).is_ok_and(same)
            && std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if self.is_as_new() {
            let mut empty = self.host.empty.lock();
            if empty.len() < EMPTY_DIRECTORIES_MAX {
                empty.push(std::mem::take(&mut self.path));
                return;
            }
        }
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "failed to remove a working directory");
            }
            _ => {}
        }
    }
}

/// The runner of one process handler.
#[derive(Clone, Debug)]
pub struct ProcessRunner {
    settings: Arc<Settings>,
}

/// Options, with everything resolved that is the same for every attempt.
#[derive(Debug)]
struct Settings {
    program: PathBuf,
    options: ProcessOptions,
    environment: BTreeMap<OsString, OsString>,
    host: Arc<Host>,
}

impl ProcessRunner {
    /// Checks the options and resolves program and environment.
    ///
    /// # Errors
    /// [`OptionsError`] names the bad setting. A program that does not exist is no error here: it may
    /// be installed later, and an attempt says so.
    pub fn new(options: ProcessOptions, host: Arc<Host>) -> Result<Self, OptionsError> {
        let program = options.argv.first().filter(|program| !program.is_empty()).ok_or(OptionsError::NoProgram)?;
        let environment = environment(&options)?;
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        // With an absolute path the standard library can take its fast way to start a process.
        let program = find_program(program, path);
        Ok(Self { settings: Arc::new(Settings { program, options, environment, host }) })
    }
}

impl Runner for ProcessRunner {
    fn run(&self, run: Run) -> BoxFuture<Outcome> {
        Box::pin(attempt::run(Arc::clone(&self.settings), run))
    }
}

impl Settings {
    /// The command of one attempt.
    fn command(&self, run: &Run, directory: &Path) -> Command {
        #[expect(clippy::disallowed_methods, reason = "this is the module that the others are told to use")]
        let mut command = Command::new(&self.program);
        command.args(&self.options.argv[1..]).args(run.args.iter().map(|arg| &**arg));
        command.env_clear().envs(&self.environment);
        command.env(INSTANCE_VARIABLE, &*self.host.instance);
        command.env(TASK_VARIABLE, run.task.to_string()).env(ATTEMPT_VARIABLE, run.attempt.to_string());
        if let Some(trace) = &run.trace {
            command.envs(crate::telemetry::trace::propagated().variables(trace));
        }
        command.current_dir(directory);
        command.stdin(if run.payload.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.options.limits.apply_to(&mut command);
        command
    }
}

fn environment(options: &ProcessOptions) -> Result<BTreeMap<OsString, OsString>, OptionsError> {
    let mut environment = BTreeMap::from([(OsString::from("PATH"), OsString::from(DEFAULT_PATH))]);
    for name in options.env_pass.iter().chain(options.env.keys()) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(OptionsError::BadVariable(name.clone()));
        }
        if name.starts_with("LINESHAFT_") {
            return Err(OptionsError::ReservedVariable(name.clone()));
        }
    }
    for name in &options.env_pass {
        if let Some(value) = std::env::var_os(name) {
            environment.insert(name.into(), value);
        }
    }
    environment.extend(options.env.iter().map(|(name, value)| (name.into(), value.into())));
    Ok(environment)
}

fn find_program(program: &str, path: &OsStr) -> PathBuf {
    if program.contains('/') {
        return PathBuf::from(program);
    }
    let directories = path.as_bytes().split(|byte| *byte == b':').filter(|directory| directory.starts_with(b"/"));
    let mut candidates = directories.map(|directory| Path::new(OsStr::from_bytes(directory)).join(program));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| PathBuf::from(program))
}

/// Takes from this process, and from all that it starts, what no handler needs: ways to gain
/// privileges, files that it was started with, and core dumps, which would write payloads to the disk.
/// To be called once, on the main thread, before any other thread is started.
///
/// # Errors
/// What the kernel says.
pub fn harden_process() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    sys::keep_open_files_to_ourselves()
}
