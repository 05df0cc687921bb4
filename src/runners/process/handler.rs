//! A process handler with everything resolved that is the same for every attempt.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::environment::{ATTEMPT_VARIABLE, DEFAULT_PATH, INSTANCE_VARIABLE, TASK_VARIABLE, environment, find_program};
use super::host::Host;
use super::options::{OptionsError, ProcessOptions};
use crate::runners::Run;
use crate::telemetry::propagation;

#[derive(Debug)]
pub(super) struct ProcessHandler {
    pub(super) program: PathBuf,
    pub(super) options: ProcessOptions,
    environment: BTreeMap<OsString, OsString>,
    pub(super) host: Arc<Host>,
}

impl ProcessHandler {
    pub(super) fn new(options: ProcessOptions, host: Arc<Host>) -> Result<Self, OptionsError> {
        let program = options.argv.first().filter(|program| !program.is_empty()).ok_or(OptionsError::NoProgram)?;
        let environment = environment(&options)?;
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        // With an absolute path the standard library can start a process on its fast path.
        let program = find_program(program, path);
        Ok(Self { program, options, environment, host })
    }

    /// The command of one attempt.
    pub(super) fn command(&self, run: &Run, directory: &Path) -> Command {
        #[expect(clippy::disallowed_methods, reason = "this is the module that others must use instead")]
        let mut command = Command::new(&self.program);
        command.args(&self.options.argv[1..]).args(run.args.iter().map(|arg| &**arg));
        command.env_clear().envs(&self.environment);
        command.env(INSTANCE_VARIABLE, &*self.host.instance);
        command.env(TASK_VARIABLE, run.task.to_string()).env(ATTEMPT_VARIABLE, run.attempt.to_string());
        if let Some(context) = &run.trace {
            command.envs(propagation::installed().variables(context));
        }
        command.current_dir(directory);
        command.stdin(if run.payload.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        self.options.limits.apply_to(&mut command);
        command
    }
}
