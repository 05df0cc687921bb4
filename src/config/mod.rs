//! Every setting of the server: from the file, the environment and the flags to one checked [`Config`].
//!
//! Flags win over the environment, the environment over the file, the file over the defaults.
//! Nothing unknown is ignored; every problem is reported with its field, value, limit and place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod auth;
mod builtin;
mod diagnostics;
mod error;
mod handler;
mod http;
mod load;
mod pool;
mod provenance;
mod server;
mod telemetry;
mod tls;
pub mod units;

pub use auth::{Auth, AuthLimits, Certificate, ClaimGrant, Jwt, JwtAlgorithm};
pub use builtin::Builtin;
pub use error::{ConfigError, Problem};
pub use handler::{Handler, Launch, Process, ProcessLimits, Retry, RunnerKind};
pub use http::Http;
pub use load::{CONFIG_VARIABLE, Overrides, load};
pub use pool::{Durability, Pool, PoolKind};
pub use server::{Limits, Log, Retention, Server, Store};
pub use telemetry::{OtlpProtocol, TaskLogs, Telemetry, TraceMode};
pub use tls::{ClientCertificate, Tls};

pub use crate::telemetry::log::LogFormat;

use crate::model::Catalog;
use error::Problems;

/// What stands for a value that is not shown; refused where a value is wanted.
pub(crate) const MASK: &str = "(hidden)";

/// The configuration of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default = "Config::bare", deny_unknown_fields)]
#[schemars(title = "Lineshaft configuration")]
pub struct Config {
    /// Registers compute, io, expression and heavy unless a handler has that name. Default true.
    pub builtins: bool,
    /// Where callers connect and how many of them.
    pub server: Server,
    /// JSON, browsers and plain routes on the same port.
    pub http: Http,
    /// Private connections: certificates.
    pub tls: Tls,
    /// Who may call, and what for.
    pub auth: Auth,
    /// Where tasks are kept.
    pub store: Store,
    /// How long ended tasks are kept.
    pub retention: Retention,
    /// Bounds that hold over all pools.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
    /// What a collector is told.
    pub telemetry: Telemetry,
    /// The pools; the first is that of handlers that name none. Default: one named "default".
    #[serde(rename = "pool")]
    pub pools: Vec<Pool>,
    /// The handlers. Default: the built-ins.
    #[serde(rename = "handler")]
    pub handlers: Vec<Handler>,
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self::bare();
        config.complete();
        config
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all problems at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.http.check(&mut problems);
        self.server.check(self.auth.on(), &mut problems);
        self.tls.check(&mut problems);
        self.auth.check(self.tls.client_ca.is_some(), &mut problems);
        self.store.check(&mut problems);
        self.retention.check(&mut problems);
        self.limits.check(&mut problems);
        self.log.check(&mut problems);
        self.telemetry.check(&mut problems);
        if self.pools.is_empty() {
            problems.add("pool", "", "must be at least one");
        }
        for (index, pool) in self.pools.iter().enumerate() {
            let path = format!("pool[{index}]");
            pool.check(&path, &mut problems);
            if self.pools[..index].iter().any(|other| other.name == pool.name) {
                problems.add(format!("{path}.name"), format!("{:?}", pool.name), "is the name of another pool");
            }
        }
        for (index, handler) in self.handlers.iter().enumerate() {
            let path = format!("handler[{index}]");
            handler.check(&path, &mut problems);
            if self.handlers[..index].iter().any(|other| other.name == handler.name) {
                problems.add(format!("{path}.name"), format!("{:?}", handler.name), "is the name of another handler");
            }
            self.check_pools_of(handler, &path, &mut problems);
        }
        if problems.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems.0)) }
    }

    /// Handlers and pools as submissions are resolved against them; call it on a configuration that
    /// [`load()`] returned or [`Config::validate`] accepted: what has no valid name is left out.
    pub fn catalog(&self) -> Catalog {
        Catalog {
            handlers: self
                .handlers
                .iter()
                .filter_map(Handler::spec)
                .map(|handler| (handler.name.clone(), handler))
                .collect(),
            pools: self.pools.iter().filter_map(Pool::spec).map(|pool| (pool.name.clone(), pool)).collect(),
        }
    }

    /// The configuration as TOML with every default shown; loading it gives the same configuration.
    pub fn dump(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is tables of plain values")
    }

    /// The same for eyes that may see less: what handlers get in their environment may be secret.
    pub fn dump_masked(&self) -> String {
        let mut masked = self.clone();
        for handler in &mut masked.handlers {
            handler.env.values_mut().for_each(|value| MASK.clone_into(value));
        }
        masked.dump()
    }

    /// The JSON schema of the file, for editors.
    pub fn schema() -> String {
        format!("{:#}\n", schemars::schema_for!(Self).as_value())
    }

    /// Defaults without the default pool and the built-ins: what a file adds to.
    fn bare() -> Self {
        Self {
            builtins: true,
            server: Server::default(),
            http: Http::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            store: Store::default(),
            retention: Retention::default(),
            limits: Limits::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
            pools: Vec::new(),
            handlers: Vec::new(),
        }
    }

    /// Adds the default pool and the built-ins, and the pools that handlers leave open.
    fn complete(&mut self) {
        if self.pools.is_empty() {
            self.pools.push(Pool::named(pool::DEFAULT_NAME));
        }
        if self.builtins {
            for builtin in Builtin::ALL {
                if self.handlers.iter().all(|handler| handler.name != builtin.name()) {
                    self.handlers.push(self.registered(builtin));
                }
            }
        }
        for handler in &mut self.handlers {
            handler.pool.get_or_insert_with(|| self.pools[0].name.clone());
            handler.complete();
        }
    }

    /// A built-in that nobody configured: in the first pool that suits it, allowed in all others that do.
    fn registered(&self, builtin: Builtin) -> Handler {
        let suits = |pool: &&Pool| pool.kind == PoolKind::Threads || !builtin.blocking();
        let mut pools = self.pools.iter().filter(suits).map(|pool| pool.name.clone());
        let pool = pools.next();
        Handler { pool, allowed_pools: pools.collect(), ..Handler::for_builtin(builtin) }
    }

    fn check_pools_of(&self, handler: &Handler, path: &str, problems: &mut Problems) {
        let own = handler.pool.iter().map(|pool| (format!("{path}.pool"), pool));
        let allowed = handler.allowed_pools.iter().enumerate();
        let allowed = allowed.map(|(index, pool)| (format!("{path}.allowed_pools[{index}]"), pool));
        for (field, name) in own.chain(allowed) {
            let value = format!("{name:?}");
            match self.pools.iter().find(|pool| pool.name == *name) {
                None => {
                    let known: Vec<_> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
                    problems.add(field, value, format!("is not a pool; there are: {}", known.join(", ")));
                }
                Some(pool) if pool.kind == PoolKind::Async && handler.blocking() => problems.add(
                    field,
                    value,
                    format!(
                        "handler `{}` computes on its worker and may not run in `{name}`, an async pool; \
                         use a pool of kind \"threads\", or builtins = false if nobody needs it",
                        handler.name
                    ),
                ),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
