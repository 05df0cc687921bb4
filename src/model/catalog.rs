//! What the operator registered: handlers and pools, as submissions are resolved against them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::{HandlerName, PoolName};
use super::pool::PoolSpec;
use super::retry::RetryPolicy;

/// A registered handler, as submitters see it.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerSpec {
    /// Its name.
    pub name: HandlerName,
    /// `builtin`, `process`, … .
    pub runner: &'static str,
    /// For people.
    pub description: String,
    /// What its payload looks like, for people.
    pub payload_description: String,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// Other pools that a task may name.
    pub allowed_pools: Vec<PoolName>,
    /// Time-out of an attempt; `None` takes the pool's.
    pub timeout: Option<Duration>,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// Whether submitters may add arguments.
    pub accepts_args: bool,
    /// Time between asking a task to stop and forcing it.
    pub grace: Duration,
    /// Whether it computes on its worker, so that it may not run in an async pool.
    pub blocking: bool,
}

/// Everything registered, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// The handlers.
    pub handlers: BTreeMap<HandlerName, HandlerSpec>,
    /// The pools as configured; what changed since is the scheduler's to say.
    pub pools: BTreeMap<PoolName, PoolSpec>,
}
