//! A process handler with everything resolved that is the same for every attempt.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::account::Account;
use super::artifact_directory::ArtifactDirectory;
use super::environment::{
    ARTIFACTS_VARIABLE, DEFAULT_PATH, INSTANCE_VARIABLE, REPORT_VARIABLES, environment, find_program,
};
use super::host::Host;
use super::limits::Limits;
use super::options::{OptionsError, ProcessOptions};
use super::wire::Start;
use crate::model::{Payload, Reservation};
use crate::runners::Run;
use crate::runners::environment::of_attempt;
use crate::runners::parents::NoResults;

/// Processes of a user, unless its handler sets another limit.
const PROCESSES_DEFAULT: u64 = 1_024;

#[derive(Debug)]
pub(super) struct ProcessHandler {
    pub(super) program: PathBuf,
    pub(super) options: ProcessOptions,
    pub(super) host: Arc<Host>,
    account: Option<Account>,
    start: Start,
}

impl ProcessHandler {
    pub(super) fn new(options: ProcessOptions, host: Arc<Host>) -> Result<Self, OptionsError> {
        let program = options.argv.first().filter(|program| !program.is_empty()).ok_or(OptionsError::NoProgram)?;
        let environment = environment(&options)?;
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        // Otherwise it is searched for at each attempt.
        let program = find_program(program, path);
        let user = options.user.as_deref();
        let account = user.map(|user| Account::resolve(user, options.group.as_deref())).transpose()?;
        // For the server's user the kernel would count the server, too.
        let processes = account.map(|_| options.limits.processes.unwrap_or(PROCESSES_DEFAULT));
        let mut start = Start::new(program.as_os_str(), &Limits { processes, ..options.limits });
        start.grace(options.grace);
        start.nice(options.nice);
        if let Some(file) = &options.payload_file {
            start.payload_file(file);
        }
        if let Some(account) = account {
            host.admit(account)?;
            start.account(account);
        }
        for argument in &options.argv[1..] {
            start.argument(argument.as_ref());
        }
        for (name, value) in &environment {
            start.variable(name, value);
        }
        start.variable(INSTANCE_VARIABLE.as_ref(), host.instance.as_ref().as_ref());
        if options.reports {
            start.reports();
            for (name, path) in REPORT_VARIABLES {
                start.variable(name.as_ref(), path.as_ref());
            }
        }
        if let Some(directory) = &options.working_directory {
            start.directory(directory.as_os_str());
        }
        Ok(Self { program, options, host, account, start })
    }

    /// The directory for the artifacts of an attempt, if the program gets one.
    ///
    /// # Errors
    /// As the system calls.
    pub(super) async fn artifact_directory(&self) -> io::Result<Option<ArtifactDirectory>> {
        if !self.options.artifacts {
            return Ok(None);
        }
        ArtifactDirectory::create(self.host.work(), self.account).await.map(Some)
    }

    /// The message that starts an attempt, and the memory of the results of its parents in it; the payload follows it.
    pub(super) async fn start_message(
        &self,
        run: &Run,
        artifacts: Option<&ArtifactDirectory>,
    ) -> Result<(Vec<u8>, Option<Reservation>), NoResults> {
        let mut start = self.start.clone();
        if self.options.working_directory.is_none() {
            let (handler, namespace) = (run.options.handler.as_str(), run.options.namespace.as_str());
            start.owner(&[handler.as_bytes(), b"\0", namespace.as_bytes()]);
        }
        if let Some(file) = &self.options.result_file {
            start.result_file(file, run.result_memory.limit());
        }
        for argument in &run.args {
            start.argument(OsStr::new(&**argument));
        }
        for (name, value) in of_attempt(run) {
            start.variable(name.as_ref(), value.as_ref());
        }
        if let Some(directory) = artifacts {
            start.variable(ARTIFACTS_VARIABLE.as_ref(), directory.path().as_os_str());
        }
        let mut memory = None;
        if let Some(parents) = run.parents.as_ref().filter(|_| self.options.parents) {
            let mut number = 0;
            let add = |result: Option<Payload>| {
                if let Some(result) = result {
                    start.parent(&number.to_string(), &result.data);
                }
                number += 1;
                Ok(())
            };
            memory = parents.read(&run.result_memory, &run.stop, add).await?;
        }
        Ok((start.message(run.payload.len()), memory))
    }
}
