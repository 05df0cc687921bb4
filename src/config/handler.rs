//! Section `[[handler]]`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::builtin::Builtin;
use super::error::Problems;
use super::exit_codes::ExitCodes;
use super::export::Export;
use super::http_call::{HttpCall, HttpRequest};
use super::pool::PoolKind;
use super::program::{Process, ProcessLimits, Wasm};
use super::units::HumanDuration;
use crate::model::{
    self, ArgPattern, HandlerName, HandlerSource, HandlerSpec, PayloadSchema, PoolName, RetryPolicy, Secret, id, limits,
};

/// `[[handler]]`: a handler that submitters can name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting")]
pub struct Handler {
    /// Name: 1 to 64 letters, digits or . _ : - characters. Required.
    pub name: String,
    /// How the handler runs: "builtin", "process", "wasm" for a WebAssembly module, "http" for a request to a service,
    /// "export" for a file with rows of a database, or "remote" for a function of a program that connects to the server. Required.
    pub runner: RunnerKind,
    /// Description for people. Default: that of the built-in handler, or "".
    #[serde(default)]
    pub description: String,
    /// Description of the payload, for people. Default: that of the built-in handler, or "".
    #[serde(default)]
    pub payload_description: String,
    /// JSON schema that payloads have to match: a JSON file of at most 1 MiB, or the schema itself if the text begins with `{`.
    /// It cannot refer to other documents. Default: any payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Whether this is a built-in handler that the file does not have, and no pool suits it.
    #[serde(skip)]
    pub(super) lacks_pool: bool,
    /// The schema, once it is loaded.
    #[serde(skip)]
    pub(super) loaded_schema: Option<PayloadSchema>,
    /// Pool in which its tasks run; of kind "remote" for runner = "remote", and of another kind otherwise. Default: the first
    /// pool that suits the handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Other pools that a task can choose. A task that chooses none goes to the first that takes its namespace. Default: none.
    #[serde(default)]
    pub allowed_pools: Vec<String>,
    /// Timeout of an attempt, 1ms to 24h. Default: the timeout of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Time between asking an attempt to stop and killing it, 0 to 5m; processes that a program leaves behind have it to
    /// write the rest of their output, and a service to answer after the call of its `cancel_url`. 0 kills at once.
    /// Default: 5s.
    #[serde(default = "default_grace")]
    pub grace: HumanDuration,
    /// For runner = "builtin": "compute", "io", "expression" or "heavy". Required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// For runner = "process": program and arguments; no shell is used. Required there. For runner = "wasm": name and arguments
    /// that the guest sees. Default there: the name of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// For runner = "process", "wasm" or "http": regular expression that each argument of a task must match as a whole, such as
    /// "[a-z0-9_]+". A program gets the arguments after those of `argv`, and one that begins with "-" can be an option of it;
    /// `{args[0]}` stands for the first one in a URL or a header. Default: no arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg_pattern: Option<String>,
    /// For runner = "process" or "wasm": names of environment variables that are passed on from the server. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_pass: Vec<String>,
    /// For runner = "process": name or number of the user that the program runs as, not root. The server must be root or have
    /// the capabilities CHOWN, KILL, SETGID and SETUID. Default: the user of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// For runner = "process": name or number of the only group of `user`. Default: its primary group in /etc/passwd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// For runner = "process": how much is added to the niceness of the server, 0 to 19. A program of a higher niceness gets less
    /// of a busy CPU. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<u8>,
    /// For runner = "process": working directory. Default: a new directory for each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<PathBuf>,
    /// For runner = "process" or "wasm": content type of the result. Default: "text/plain".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// For runner = "process" or "wasm": exit codes after which the task is not retried, such as 65 or "64-78". Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permanent_exit_codes: Vec<ExitCodes>,
    /// For runner = "process" or "wasm": exceptions from `permanent_exit_codes`. Default: 75, which `sysexits.h` calls a temporary
    /// failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_exit_codes: Option<Vec<ExitCodes>>,
    /// For runner = "process": gives the program pipes on which it can report its progress and more, and write its result. The
    /// variables `LINESHAFT_REPORT` and `LINESHAFT_RESULT` have their paths. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reports: bool,
    /// For runner = "process": name of a file in the directory of the attempt that contains the payload; stdin is empty. Not with
    /// `working_directory`. Default: the payload is on stdin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_file: Option<String>,
    /// For runner = "process": name of the file in the directory of the attempt whose content is the result of a program that
    /// exits with 0; without it, the attempt fails. Not with `working_directory` or `reports`. Default: stdout is the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_file: Option<String>,
    /// For runner = "process": the results of the parents of a task are files in the working directory of its attempt, which then is
    /// a new one: `parents/0` and so on, in the order of the parents, for those that have completed. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parents: bool,
    /// For runner = "process": gives the program a directory, whose path is in the variable `LINESHAFT_ARTIFACTS`. The files in it
    /// are the artifacts of the task if the program exits with 0. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub artifacts: bool,
    /// For runner = "wasm": file with a WebAssembly module or component in binary form, at most 64 MiB, that is a WASI command.
    /// It is read at the start. Required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<PathBuf>,
    /// For runner = "wasm": lets the guest see the time. Otherwise its clocks stand still, so that untrusted code cannot measure
    /// other work. A guest that sleeps needs it. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock: bool,
    /// Retries of failed attempts.
    #[serde(default)]
    pub retry: Retry,
    /// For runner = "process" or "wasm": environment variables. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Secret>,
    /// For runner = "process": resource limits. For runner = "wasm" and builtin = "heavy": `memory`.
    #[serde(default, skip_serializing_if = "ProcessLimits::is_empty")]
    pub limits: ProcessLimits,
    /// For runner = "http": the request that an attempt sends. Required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCall>,
    /// For runner = "export": what is exported. Required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
}

/// How a handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunnerKind {
    /// A built-in handler.
    Builtin,
    /// A program.
    Process,
    /// A WebAssembly module.
    Wasm,
    /// A request to a service.
    Http,
    /// A file with rows of a database.
    Export,
    /// A function of a program that connects to the server.
    Remote,
    /// A function of the program that the server is a part of; not in a file.
    #[serde(skip)]
    Function,
}

/// `[handler.retry]`: exponential back-off with an upper limit and jitter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Maximum number of attempts, including the first, 1 to 100. Default: 3.
    pub attempts: u32,
    /// Delay before the second attempt, 0 to 365d. Default: 10s.
    pub delay: HumanDuration,
    /// Factor by which the delay grows with each further attempt, 1 to 10. Default: 2.
    pub factor: f64,
    /// Upper limit of the delay, before jitter, from `delay` to 365d. Default: 10m.
    pub max_delay: HumanDuration,
    /// Maximum random addition to the delay, as a fraction of it, 0 to 1. Default: 0.2.
    pub jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        let RetryPolicy { attempts_max, delay, factor, delay_max, jitter } = RetryPolicy::default();
        Self {
            attempts: attempts_max,
            delay: HumanDuration(delay),
            factor,
            max_delay: HumanDuration(delay_max),
            jitter,
        }
    }
}

impl Retry {
    fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            attempts_max: self.attempts,
            delay: self.delay.0,
            factor: self.factor,
            delay_max: self.max_delay.0,
            jitter: self.jitter,
        }
    }

    fn check(&self, path: &str, problems: &mut Problems) {
        let year = HumanDuration(limits::DELAY_MAX);
        problems.check_range(format!("{path}.attempts"), self.attempts, 1, limits::ATTEMPTS_MAX);
        problems.check_range(format!("{path}.delay"), self.delay, HumanDuration::default(), year);
        problems.check_range(format!("{path}.factor"), self.factor, 1.0, 10.0);
        problems.check_range(format!("{path}.max_delay"), self.max_delay, self.delay.min(year), year);
        problems.check_range(format!("{path}.jitter"), self.jitter, 0.0, 1.0);
    }
}

/// The settings of a handler that belong to its runner.
#[derive(Clone, Debug, PartialEq)]
pub enum Launch {
    Builtin(Builtin),
    Process(Box<Process>),
    Wasm(Box<Wasm>),
    Http(Box<HttpRequest>),
    Export(Box<Export>),
    Remote,
    Function,
}

impl Handler {
    /// A handler with default settings.
    fn new(name: &str, runner: RunnerKind) -> Self {
        Self {
            name: name.to_owned(),
            runner,
            description: String::new(),
            payload_description: String::new(),
            lacks_pool: false,
            schema: None,
            loaded_schema: None,
            pool: None,
            allowed_pools: Vec::new(),
            timeout: None,
            grace: default_grace(),
            builtin: None,
            argv: Vec::new(),
            arg_pattern: None,
            env_pass: Vec::new(),
            user: None,
            group: None,
            nice: None,
            working_directory: None,
            content_type: None,
            permanent_exit_codes: Vec::new(),
            retry_exit_codes: None,
            reports: false,
            payload_file: None,
            result_file: None,
            parents: false,
            artifacts: false,
            module: None,
            clock: false,
            retry: Retry::default(),
            env: BTreeMap::new(),
            limits: ProcessLimits::default(),
            http: None,
            export: None,
        }
    }

    /// A built-in handler with its own name.
    pub fn for_builtin(builtin: Builtin) -> Self {
        Self { builtin: Some(builtin), ..Self::new(builtin.name(), RunnerKind::Builtin) }
    }

    /// A function of the program that the server is a part of.
    pub(super) fn for_function(name: &str, description: &str, pool: &str) -> Self {
        let (description, pool) = (description.to_owned(), Some(pool.to_owned()));
        Self { description, pool, ..Self::new(name, RunnerKind::Function) }
    }

    pub fn is_process(&self) -> bool {
        self.runner == RunnerKind::Process
    }

    /// `None` if settings that the runner requires are missing or invalid.
    pub fn launch(&self) -> Option<Launch> {
        match self.runner {
            RunnerKind::Builtin => self.builtin.map(Launch::Builtin),
            RunnerKind::Remote => Some(Launch::Remote),
            RunnerKind::Function => Some(Launch::Function),
            RunnerKind::Http => self.http.as_ref()?.parsed().map(|http| Launch::Http(Box::new(http))),
            RunnerKind::Export => self.export.clone().map(|export| Launch::Export(Box::new(export))),
            RunnerKind::Process if self.argv.is_empty() => None,
            RunnerKind::Process => Some(Launch::Process(Box::new(Process {
                argv: self.argv.clone(),
                arg_pattern: self.arg_pattern().ok()?,
                env: self.env.clone(),
                env_pass: self.env_pass.clone(),
                user: self.user.clone(),
                group: self.group.clone(),
                nice: self.nice.unwrap_or(0),
                working_directory: self.working_directory.clone(),
                limits: self.limits.clone(),
                content_type: self.content_type.clone(),
                permanent_exit_codes: self.permanent_exit_codes(),
                retry_exit_codes: self.retry_exit_codes(),
                reports: self.reports,
                payload_file: self.payload_file.clone(),
                result_file: self.result_file.clone(),
                parents: self.parents,
                artifacts: self.artifacts,
            }))),
            RunnerKind::Wasm => Some(Launch::Wasm(Box::new(Wasm {
                module: self.module.clone()?,
                argv: self.argv.clone(),
                arg_pattern: self.arg_pattern().ok()?,
                env: self.env.clone(),
                env_pass: self.env_pass.clone(),
                memory: self.limits.memory,
                clock: self.clock,
                content_type: self.content_type.clone(),
                permanent_exit_codes: self.permanent_exit_codes(),
                retry_exit_codes: self.retry_exit_codes(),
            }))),
        }
    }

    fn permanent_exit_codes(&self) -> Vec<RangeInclusive<i32>> {
        self.permanent_exit_codes.iter().map(|codes| codes.range()).collect()
    }

    fn retry_exit_codes(&self) -> Vec<RangeInclusive<i32>> {
        match &self.retry_exit_codes {
            Some(codes) => codes.iter().map(|codes| codes.range()).collect(),
            None => vec![ExitCodes::TEMPORARY.range()],
        }
    }

    pub fn arg_pattern(&self) -> Result<Option<ArgPattern>, String> {
        self.arg_pattern.as_deref().map(ArgPattern::parse).transpose()
    }

    /// Whether it uses the CPU of its worker, so that it cannot run in an async pool.
    fn blocking(&self) -> bool {
        match self.runner {
            RunnerKind::Builtin => self.builtin.is_some_and(Builtin::blocking),
            RunnerKind::Wasm | RunnerKind::Export => true,
            RunnerKind::Process | RunnerKind::Http | RunnerKind::Remote | RunnerKind::Function => false,
        }
    }

    /// Why it cannot run in a pool of this kind, as the end of a sentence about the pool; `None` if it can.
    pub(super) fn unsuitable(&self, kind: PoolKind) -> Option<String> {
        let name = &self.name;
        let hint = "or set builtins = false if the handler is not needed";
        match (self.runner, kind) {
            (RunnerKind::Remote, PoolKind::Threads | PoolKind::Async) => Some(format!(
                "has workers of the server, but handler `{name}` runs in remote workers; use a pool of kind \"remote\""
            )),
            (RunnerKind::Remote, PoolKind::Remote) => None,
            (_, PoolKind::Remote) => Some(format!(
                "is a remote pool, but handler `{name}` runs in the server; use a pool of another kind, {hint}"
            )),
            (_, PoolKind::Async) if self.blocking() => Some(format!(
                "is an async pool, but handler `{name}` uses the CPU of its worker; \
                 use a pool of kind \"threads\", {hint}"
            )),
            _ => None,
        }
    }

    /// Adds the descriptions of the built-in handler where none are set.
    pub(super) fn add_descriptions(&mut self) {
        let Some(builtin) = self.builtin else { return };
        if self.description.is_empty() {
            builtin.description().clone_into(&mut self.description);
        }
        if self.payload_description.is_empty() {
            builtin.payload_description().clone_into(&mut self.payload_description);
        }
    }

    /// Converts to the model; `None` if a name or a pattern is invalid.
    pub(super) fn spec(&self) -> Option<HandlerSpec> {
        Some(HandlerSpec {
            name: HandlerName::parse(&self.name).ok()?,
            runner: match self.runner {
                RunnerKind::Builtin => "builtin",
                RunnerKind::Process => "process",
                RunnerKind::Wasm => model::WASM_RUNNER,
                RunnerKind::Http => "http",
                RunnerKind::Export => "export",
                RunnerKind::Remote => model::REMOTE_RUNNER,
                RunnerKind::Function => "function",
            },
            description: self.description.clone(),
            payload_description: self.payload_description.clone(),
            pool: PoolName::parse(self.pool.as_deref()?).ok()?,
            allowed_pools: self.allowed_pools.iter().map(|pool| PoolName::parse(pool).ok()).collect::<Option<_>>()?,
            timeout: self.timeout.map(|timeout| timeout.0),
            retry: self.retry.policy(),
            arg_pattern: self.arg_pattern().ok()?,
            grace: self.grace.0,
            blocking: self.blocking(),
            source: match self.runner {
                RunnerKind::Function => HandlerSource::Program,
                RunnerKind::Builtin if self.builtin.is_some_and(|builtin| builtin.name() == self.name) => {
                    HandlerSource::Builtin
                }
                _ => HandlerSource::File,
            },
            payload_schema: self.loaded_schema.clone(),
        })
    }

    /// Checks everything but the names of the pools.
    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        if let Err(error) = id::check_name(&self.name) {
            problems.add(format!("{path}.name"), format!("{:?}", self.name), error.to_string());
        }
        if let Some(timeout) = self.timeout {
            let (min, max) = (HumanDuration(limits::TIMEOUT_MIN), HumanDuration(limits::TIMEOUT_MAX));
            problems.check_range(format!("{path}.timeout"), timeout, min, max);
        }
        problems.check_range(
            format!("{path}.grace"),
            self.grace,
            HumanDuration::default(),
            HumanDuration(limits::GRACE_MAX),
        );
        self.retry.check(&format!("{path}.retry"), problems);
        if self.runner != RunnerKind::Builtin && self.builtin.is_some() {
            problems.add(format!("{path}.builtin"), "", "is only allowed for runner = \"builtin\"");
        }
        self.refuse_settings_of_programs(path, problems);
        if self.runner != RunnerKind::Http && self.http.is_some() {
            problems.add(format!("{path}.http"), "", "is only allowed for runner = \"http\"");
        }
        if self.runner != RunnerKind::Export && self.export.is_some() {
            problems.add(format!("{path}.export"), "", "is only allowed for runner = \"export\"");
        }
        self.check_arg_pattern(path, problems);
        match self.runner {
            RunnerKind::Builtin => self.check_builtin(path, problems),
            RunnerKind::Process => self.check_process(path, problems),
            RunnerKind::Wasm => self.check_wasm(path, problems),
            RunnerKind::Http => self.check_http(path, problems),
            RunnerKind::Export => self.check_export(path, problems),
            RunnerKind::Remote | RunnerKind::Function => {}
        }
    }

    fn check_arg_pattern(&self, path: &str, problems: &mut Problems) {
        let Some(pattern) = &self.arg_pattern else { return };
        let path = format!("{path}.arg_pattern");
        if !matches!(self.runner, RunnerKind::Process | RunnerKind::Wasm | RunnerKind::Http) {
            problems.add(path, "", "is only allowed for runner = \"process\", \"wasm\" or \"http\"");
        } else if let Err(error) = self.arg_pattern() {
            problems.add(path, format!("{pattern:?}"), format!("is invalid: {error}"));
        }
    }

    fn check_http(&self, path: &str, problems: &mut Problems) {
        let Some(http) = &self.http else {
            problems.add(
                format!("{path}.http"),
                "",
                "is required for runner = \"http\"; add [handler.http] with a `url`",
            );
            return;
        };
        http.check(&format!("{path}.http"), self.arg_pattern.is_some(), problems);
    }

    fn check_export(&self, path: &str, problems: &mut Problems) {
        if !cfg!(feature = "export") {
            let description = "needs a server that was built with the feature `export`";
            problems.add(format!("{path}.runner"), "\"export\"", description);
        }
        let path = format!("{path}.export");
        if let Some(export) = &self.export {
            export.check(&path, problems);
        } else {
            let description = "is required for runner = \"export\"; add [handler.export] with a `connection`";
            problems.add(path, "", description);
        }
    }

    fn check_builtin(&self, path: &str, problems: &mut Problems) {
        if self.builtin.is_none() {
            let names = Builtin::ALL.map(Builtin::name).join(", ");
            problems.add(
                format!("{path}.builtin"),
                "",
                format!("is required for runner = \"builtin\"; one of {names}"),
            );
        }
        self.limits.check(&format!("{path}.limits"), problems);
    }
}

fn default_grace() -> HumanDuration {
    HumanDuration(limits::GRACE_DEFAULT)
}
