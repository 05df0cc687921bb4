//! The handlers, configured, registered and uploaded, and the configured pools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::arg_pattern::ArgPattern;
use super::id::{HandlerName, LimitName, PoolName};
use super::limits::{GRACE_DEFAULT, PayloadLimit};
use super::payload_schema::PayloadSchema;
use super::pool::{PoolKind, PoolSpec};
use super::retry::RetryPolicy;
use super::task_limit::LimitRule;
use super::upload::{ModuleDigest, Upload};

/// Runner of the handlers that run in remote workers.
pub const REMOTE_RUNNER: &str = "remote";
/// Runner of WebAssembly modules.
pub const WASM_RUNNER: &str = "wasm";

#[derive(Clone, Debug, PartialEq)]
pub struct HandlerSpec {
    pub name: HandlerName,
    /// `builtin`, `process`, [`WASM_RUNNER`], `http`, `function` or [`REMOTE_RUNNER`].
    pub runner: &'static str,
    pub description: String,
    /// Expected format of the payload, as text for submitters.
    pub payload_description: String,
    /// Pool of tasks that do not name one.
    pub pool: PoolName,
    /// Other pools that a task may name.
    pub allowed_pools: Vec<PoolName>,
    /// Default timeout of an attempt; `None`: that of the pool.
    pub timeout: Option<Duration>,
    /// Default retry policy.
    pub retry: RetryPolicy,
    /// What submitters' arguments must match; `None`: they cannot add any.
    pub arg_pattern: Option<ArgPattern>,
    /// Time between the request to stop and the kill.
    pub grace: Duration,
    /// Whether the handler uses the CPU of its worker, so that it may not run in an async pool.
    pub blocking: bool,
    pub source: HandlerSource,
    /// What payloads have to match; `None`: anything.
    pub payload_schema: Option<PayloadSchema>,
}

/// Where a handler was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerSource {
    /// In the server, under its own name.
    Builtin,
    /// In the configuration file.
    File,
    /// In the program that the server is a part of.
    Program,
    /// By a remote worker.
    Worker,
    /// By a caller, with this module.
    Upload(ModuleDigest),
}

impl HandlerSource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::File => "file",
            Self::Program => "program",
            Self::Worker => "worker",
            Self::Upload(_) => "upload",
        }
    }
}

impl HandlerSpec {
    /// Whether it was registered while the server runs, and not by the configuration.
    pub fn is_registered(&self) -> bool {
        matches!(self.source, HandlerSource::Worker | HandlerSource::Upload(_))
    }

    /// The pools in which its tasks can run. A task that names none runs in the first that takes its namespace.
    pub fn pools(&self) -> impl Iterator<Item = &PoolName> {
        std::iter::once(&self.pool).chain(&self.allowed_pools)
    }

    /// Whether its tasks can run in the pool.
    pub fn runs_in(&self, pool: &PoolName) -> bool {
        self.pools().any(|own| own == pool)
    }
}

/// A handler that a worker has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Pools in which it runs; the first is that of tasks that do not name one. Not empty.
    pub pools: Box<[PoolName]>,
    pub description: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    pub handlers: BTreeMap<HandlerName, Arc<HandlerSpec>>,
    /// As configured; the scheduler has the present settings.
    pub pools: BTreeMap<PoolName, PoolSpec>,
    /// Limits that tasks can name.
    pub limits: BTreeMap<LimitName, LimitRule>,
    pub payload_limit: PayloadLimit,
}

/// A catalog to which registrations are added while the server runs.
pub type SharedCatalog = Arc<ArcSwap<Catalog>>;

impl Catalog {
    pub fn is_configured(&self, handler: &HandlerName) -> bool {
        self.handlers.get(handler).is_some_and(|spec| !spec.is_registered())
    }

    pub fn is_remote(&self, pool: &PoolName) -> bool {
        self.pools.get(pool).is_some_and(|spec| spec.kind == PoolKind::Remote)
    }

    /// How long an attempt of the handler may take to stop before it is killed.
    pub fn grace_of(&self, handler: &HandlerName) -> Duration {
        self.handlers.get(handler).map_or(GRACE_DEFAULT, |handler| handler.grace)
    }

    /// Adds or changes a registered handler, unless the configuration has one of this name or has none of its pools any
    /// more.
    pub fn register(&mut self, name: &HandlerName, registration: &Registration) {
        let mut pools = registration.pools.iter().filter(|pool| self.is_remote(pool)).cloned();
        let Some(pool) = pools.next().filter(|_| !self.is_configured(name)) else { return };
        let spec = HandlerSpec {
            name: name.clone(),
            runner: REMOTE_RUNNER,
            description: registration.description.to_string(),
            payload_description: String::new(),
            pool,
            allowed_pools: pools.collect(),
            timeout: None,
            retry: RetryPolicy::default(),
            arg_pattern: None,
            grace: GRACE_DEFAULT,
            blocking: false,
            source: HandlerSource::Worker,
            payload_schema: None,
        };
        self.handlers.insert(name.clone(), Arc::new(spec));
    }

    /// Whether guests can run in the pool, which occupy a thread.
    pub fn takes_guests(&self, pool: &PoolName) -> bool {
        self.pools.get(pool).is_some_and(|spec| spec.kind == PoolKind::Threads)
    }

    /// Adds or replaces an uploaded handler, unless the configuration has one of this name or has its pool no more.
    pub fn upload(&mut self, name: &HandlerName, upload: &Upload) {
        let Upload { pool, module, settings } = upload;
        if self.is_configured(name) || !self.takes_guests(pool) {
            return;
        }
        let spec = HandlerSpec {
            name: name.clone(),
            runner: WASM_RUNNER,
            description: settings.description.to_string(),
            payload_description: String::new(),
            pool: pool.clone(),
            allowed_pools: Vec::new(),
            timeout: settings.timeout,
            retry: RetryPolicy::default(),
            arg_pattern: settings.arg_pattern.clone(),
            grace: GRACE_DEFAULT,
            blocking: true,
            source: HandlerSource::Upload(*module),
            payload_schema: settings.payload_schema.clone(),
        };
        self.handlers.insert(name.clone(), Arc::new(spec));
    }

    /// Removes an uploaded handler, unless the configuration has one of this name.
    pub fn remove_upload(&mut self, name: &HandlerName) {
        if !self.is_configured(name) {
            self.handlers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UploadSettings;

    fn pool(name: &str, kind: PoolKind) -> PoolSpec {
        PoolSpec { kind, ..PoolSpec::with_defaults(PoolName::parse(name).unwrap(), 1) }
    }

    fn registration(pools: &[&str]) -> Registration {
        let pools = pools.iter().map(|pool| PoolName::parse(pool).unwrap()).collect();
        Registration { pools, description: "d".into() }
    }

    #[test]
    fn a_registered_handler_runs_in_those_of_its_pools_that_are_configured_as_remote() {
        let pools = [pool("a", PoolKind::Threads), pool("b", PoolKind::Remote), pool("c", PoolKind::Remote)];
        let pools = pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect();
        let mut catalog = Catalog { pools, ..Catalog::default() };
        let name = HandlerName::parse("resize").unwrap();
        catalog.register(&name, &registration(&["gone", "a"]));
        assert!(catalog.handlers.is_empty());
        catalog.register(&name, &registration(&["gone", "a", "c", "b"]));
        let spec = &catalog.handlers[&name];
        assert_eq!((spec.pool.as_str(), spec.allowed_pools.len(), spec.runner), ("c", 1, "remote"));
        assert!(spec.runs_in(&PoolName::parse("b").unwrap()) && !spec.runs_in(&PoolName::parse("a").unwrap()));
        let configured =
            HandlerSpec { source: HandlerSource::File, description: "ours".to_owned(), ..(**spec).clone() };
        catalog.handlers.insert(name.clone(), Arc::new(configured));
        catalog.register(&name, &registration(&["b"]));
        assert_eq!((&*catalog.handlers[&name].description, catalog.is_configured(&name)), ("ours", true));
    }

    #[test]
    fn an_uploaded_handler_needs_a_pool_of_threads_and_never_hides_a_configured_one() {
        let pools = [pool("a", PoolKind::Threads), pool("b", PoolKind::Async)];
        let pools = pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect();
        let mut catalog = Catalog { pools, ..Catalog::default() };
        let name = HandlerName::parse("count").unwrap();
        let upload = |pool: &str| Upload {
            pool: PoolName::parse(pool).unwrap(),
            module: ModuleDigest::of(b"module"),
            settings: UploadSettings { description: "counts".into(), ..UploadSettings::default() },
        };
        for pool in ["b", "gone"] {
            catalog.upload(&name, &upload(pool));
            assert!(catalog.handlers.is_empty(), "{pool}");
        }
        catalog.upload(&name, &upload("a"));
        let spec = Arc::clone(&catalog.handlers[&name]);
        assert_eq!((spec.runner, &*spec.description, spec.source.name()), ("wasm", "counts", "upload"));
        assert!(spec.blocking && spec.is_registered() && !catalog.is_configured(&name));
        let configured = Arc::new(HandlerSpec { source: HandlerSource::File, ..(*spec).clone() });
        catalog.handlers.insert(name.clone(), Arc::clone(&configured));
        catalog.upload(&name, &upload("a"));
        catalog.remove_upload(&name);
        assert_eq!(catalog.handlers[&name], configured);
    }
}
