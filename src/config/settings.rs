//! The configuration as a whole: its sections, and the checks that involve more than one of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifacts::Artifacts;
use super::auth::Auth;
use super::builtin::Builtin;
use super::connection::Connection;
use super::error::{ConfigError, Problems};
use super::handler::Handler;
use super::http::Http;
use super::pool::{DEFAULT_POOL, FUNCTION_POOL, Pool, PoolKind, REMOTE_POOL};
use super::schedule::Schedule;
use super::server::{Limits, Log, Retention, Server, Store};
use super::task_limit::TaskLimit;
use super::telemetry::Telemetry;
use super::tls::Tls;
use crate::model::Catalog;
use crate::model::limits::SCHEDULES_MAX;
use crate::model::secret::with_secrets_revealed;

/// The configuration of a Lineshaft server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default = "Config::without_pools_and_handlers", deny_unknown_fields)]
#[schemars(title = "Lineshaft configuration")]
pub struct Config {
    /// Registers the built-in handlers compute, io, expression and heavy, except those whose name is configured.
    /// Default: true.
    pub builtins: bool,
    /// Addresses, connection limits and shutdown.
    pub server: Server,
    /// JSON calls, browsers and plain routes.
    pub http: Http,
    /// TLS certificates and handshakes.
    pub tls: Tls,
    /// Authentication, roles and limits for each identity.
    pub auth: Auth,
    /// Where tasks are stored.
    pub store: Store,
    /// How long finished tasks are kept.
    pub retention: Retention,
    /// Files that tasks leave.
    pub artifacts: Artifacts,
    /// Limits of the whole server.
    pub limits: Limits,
    /// The server's log.
    pub log: Log,
    /// Export of traces, metrics and logs.
    pub telemetry: Telemetry,
    /// Pools; the first that suits a handler is its default. Default: "default" of kind "threads" and "remote" of kind
    /// "remote".
    #[serde(rename = "pool")]
    pub pools: Vec<Pool>,
    /// Databases that export handlers read. Default: none.
    #[serde(rename = "connection")]
    pub connections: Vec<Connection>,
    /// Handlers. Default: the built-in handlers.
    #[serde(rename = "handler")]
    pub handlers: Vec<Handler>,
    /// Limits that tasks name in their submission. Default: none.
    #[serde(rename = "task_limit")]
    pub task_limits: Vec<TaskLimit>,
    /// Schedules. Default: none.
    #[serde(rename = "schedule")]
    pub schedules: Vec<Schedule>,
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self::without_pools_and_handlers();
        config.add_defaults();
        config
    }
}

impl Config {
    /// Checks every setting, and returns all problems together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.http.check(&mut problems);
        self.server.check(self.auth.on(), &mut problems);
        self.tls.check(&mut problems);
        self.auth.check(self.tls.client_ca.is_some(), &mut problems);
        self.store.check(&mut problems);
        self.retention.check(&mut problems);
        self.artifacts.check(&mut problems);
        self.limits.check(&mut problems);
        self.log.check(&mut problems);
        self.telemetry.check(&mut problems);
        if self.pools.is_empty() {
            problems.add("pool", "", "must contain at least one pool");
        }
        for (index, pool) in self.pools.iter().enumerate() {
            let path = format!("pool[{index}]");
            pool.check(&path, &mut problems);
            if self.pools[..index].iter().any(|other| other.name == pool.name) {
                problems.add(format!("{path}.name"), format!("{:?}", pool.name), "is already the name of another pool");
            }
        }
        self.check_connections(&mut problems);
        for (index, handler) in self.handlers.iter().enumerate() {
            let path = format!("handler[{index}]");
            handler.check(&path, &mut problems);
            if self.handlers[..index].iter().any(|other| other.name == handler.name) {
                problems.add(
                    format!("{path}.name"),
                    format!("{:?}", handler.name),
                    "is already the name of another handler",
                );
            }
            self.check_pools_of(handler, &path, &mut problems);
            self.check_connection_of(handler, &path, &mut problems);
        }
        for (index, limit) in self.task_limits.iter().enumerate() {
            let path = format!("task_limit[{index}]");
            limit.check(&path, &mut problems);
            if self.task_limits[..index].iter().any(|other| other.name == limit.name) {
                problems.add(
                    format!("{path}.name"),
                    format!("{:?}", limit.name),
                    "is already the name of another limit",
                );
            }
        }
        let mut schedule_ids = HashMap::<&str, HashSet<&str>>::new();
        for (index, schedule) in self.schedules.iter().enumerate() {
            let path = format!("schedule[{index}]");
            schedule.check(&path, &mut problems);
            let ids = schedule_ids.entry(&schedule.namespace).or_default();
            if !ids.insert(&schedule.id) {
                problems.add(
                    format!("{path}.id"),
                    format!("{:?}", schedule.id),
                    "is already the ID of another schedule",
                );
            }
            if ids.len() == SCHEDULES_MAX + 1 {
                let description = format!("may have at most {SCHEDULES_MAX} schedules");
                problems.add(format!("{path}.namespace"), format!("{:?}", schedule.namespace), description);
            }
            if self.handlers.iter().all(|handler| handler.name != schedule.handler) {
                let description =
                    "is no configured handler; functions of workers need a `[[handler]]` with runner = \"remote\"";
                problems.add(format!("{path}.handler"), format!("{:?}", schedule.handler), description);
            }
        }
        if problems.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems.0)) }
    }

    /// Reads the files of the schemas of payloads.
    pub(super) fn load_schemas(&mut self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        for (index, handler) in self.handlers.iter_mut().enumerate() {
            handler.load_schema(&format!("handler[{index}]"), &mut problems);
        }
        if problems.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems.0)) }
    }

    /// The handlers, pools and limits that submissions can name. Entries with invalid names are left out, so call it on a valid
    /// configuration.
    pub fn catalog(&self) -> Catalog {
        Catalog {
            handlers: self
                .handlers
                .iter()
                .filter_map(Handler::spec)
                .map(|handler| (handler.name.clone(), Arc::new(handler)))
                .collect(),
            pools: self.pools.iter().filter_map(Pool::spec).map(|pool| (pool.name.clone(), pool)).collect(),
            limits: self.task_limits.iter().filter_map(TaskLimit::rule).collect(),
            payload_limit: self.limits.payload_limit(),
        }
    }

    /// The configuration as TOML, with all defaults and with its secrets. Loading it returns the same configuration.
    pub fn dump(&self) -> String {
        with_secrets_revealed(|| self.dump_masked())
    }

    /// The configuration as TOML, with all defaults, and a mask in place of each secret.
    pub fn dump_masked(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration can be written as TOML")
    }

    /// The JSON schema of the configuration file.
    pub fn schema() -> String {
        format!("{:#}\n", schemars::schema_for!(Self).as_value())
    }

    /// The defaults to which a file adds its own pools and handlers.
    fn without_pools_and_handlers() -> Self {
        Self {
            builtins: true,
            server: Server::default(),
            http: Http::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            store: Store::default(),
            retention: Retention::default(),
            artifacts: Artifacts::default(),
            limits: Limits::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
            pools: Vec::new(),
            connections: Vec::new(),
            handlers: Vec::new(),
            task_limits: Vec::new(),
            schedules: Vec::new(),
        }
    }

    /// Adds the default pools if there are none, the built-in handlers, and the pools of handlers that name none.
    pub(super) fn add_defaults(&mut self) {
        if self.pools.is_empty() {
            self.pools.push(Pool::new(DEFAULT_POOL, PoolKind::Threads));
            self.pools.push(Pool::new(REMOTE_POOL, PoolKind::Remote));
        }
        self.pools.iter_mut().for_each(Pool::add_size);
        if self.builtins {
            for builtin in Builtin::ALL {
                if self.handlers.iter().all(|handler| handler.name != builtin.name()) {
                    self.handlers.push(self.default_handler(builtin));
                }
            }
        }
        for handler in &mut self.handlers {
            if handler.pool.is_none() {
                let suitable = self.pools.iter().find(|pool| handler.unsuitable(pool.kind).is_none());
                handler.pool = Some(suitable.unwrap_or(&self.pools[0]).name.clone());
            }
            handler.add_descriptions();
        }
    }

    /// Adds handlers for functions of the program, and the pool in which they run.
    pub(super) fn add_functions(&mut self, functions: Vec<(String, String)>, slots: usize) {
        if functions.is_empty() {
            return;
        }
        if self.pools.iter().all(|pool| pool.name != FUNCTION_POOL) {
            self.pools.push(Pool { size: Some(slots), ..Pool::new(FUNCTION_POOL, PoolKind::Async) });
        }
        let handler = |(name, description): (String, String)| Handler::for_function(&name, &description, FUNCTION_POOL);
        self.handlers.extend(functions.into_iter().map(handler));
    }

    /// A built-in handler that is not configured: it uses the first suitable pool, and can use the other suitable ones.
    fn default_handler(&self, builtin: Builtin) -> Handler {
        let handler = Handler::for_builtin(builtin);
        let suitable = self.pools.iter().filter(|pool| handler.unsuitable(pool.kind).is_none());
        let mut pools = suitable.map(|pool| pool.name.clone());
        let pool = pools.next();
        Handler { lacks_pool: pool.is_none(), pool, allowed_pools: pools.collect(), ..handler }
    }

    fn check_connections(&self, problems: &mut Problems) {
        for (index, connection) in self.connections.iter().enumerate() {
            let path = format!("connection[{index}]");
            connection.check(&path, problems);
            if self.connections[..index].iter().any(|other| other.name == connection.name) {
                problems.add(
                    format!("{path}.name"),
                    format!("{:?}", connection.name),
                    "is already the name of another connection",
                );
            }
        }
    }

    fn check_connection_of(&self, handler: &Handler, path: &str, problems: &mut Problems) {
        let Some(export) = &handler.export else { return };
        if self.connections.iter().all(|connection| connection.name != export.connection) {
            let known: Vec<_> = self.connections.iter().map(|connection| connection.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            problems.add(
                format!("{path}.export.connection"),
                format!("{:?}", export.connection),
                format!("is not a connection; the connections are: {known}"),
            );
        }
    }

    fn check_pools_of(&self, handler: &Handler, path: &str, problems: &mut Problems) {
        if handler.lacks_pool {
            let name = &handler.name;
            let kinds = [(PoolKind::Async, "async"), (PoolKind::Remote, "remote")];
            let has = |kind| self.pools.iter().any(|pool| pool.kind == kind);
            let kinds = kinds.into_iter().filter(|(kind, _)| has(*kind)).map(|(_, name)| name);
            let kinds = kinds.collect::<Vec<_>>().join(" and ");
            let description = format!(
                "the built-in handler `{name}` has only {kinds} pools; add a pool of kind \"threads\", or set builtins = false \
                 if the built-in handlers are not needed"
            );
            return problems.add("builtins", "", description);
        }
        let main = handler.pool.iter().map(|pool| (format!("{path}.pool"), pool));
        let allowed = handler.allowed_pools.iter().enumerate();
        let allowed = allowed.map(|(index, pool)| (format!("{path}.allowed_pools[{index}]"), pool));
        for (field, name) in main.chain(allowed) {
            let value = format!("{name:?}");
            match self.pools.iter().find(|pool| pool.name == *name) {
                None => {
                    let known: Vec<_> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
                    problems.add(field, value, format!("is not a pool; the pools are: {}", known.join(", ")));
                }
                Some(pool) => {
                    if let Some(reason) = handler.unsuitable(pool.kind) {
                        problems.add(field, value, reason);
                    }
                }
            }
        }
    }
}
