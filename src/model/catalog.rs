//! The configured handlers and pools.

use std::collections::BTreeMap;
use std::time::Duration;

use super::arg_pattern::ArgPattern;
use super::id::{HandlerName, PoolName};
use super::pool::PoolSpec;
use super::retry::RetryPolicy;

/// Runner of the handlers that run in remote workers.
pub const REMOTE_RUNNER: &str = "remote";

#[derive(Clone, Debug, PartialEq)]
pub struct HandlerSpec {
    pub name: HandlerName,
    /// `builtin`, `process` or [`REMOTE_RUNNER`].
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
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    pub handlers: BTreeMap<HandlerName, HandlerSpec>,
    /// As configured; the scheduler has the present settings.
    pub pools: BTreeMap<PoolName, PoolSpec>,
}
