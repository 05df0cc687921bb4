//! `[[pool]]`: named sets of workers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::units::HumanDuration;
use crate::model::{self, PoolName, PoolSpec, id, limits};

/// Name of the pool that exists when none is configured.
pub const DEFAULT_NAME: &str = "default";
/// Most tasks that may wait in one pool.
pub const QUEUE_LIMIT_MAX: usize = 100_000_000;

/// `[[pool]]`: one set of workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name: 1 to 64 of letters, digits and . _ : -. Must be given.
    pub name: String,
    /// What it is for, for people. Default "".
    #[serde(default)]
    pub description: String,
    /// What drives its workers. Default "threads".
    #[serde(default)]
    pub kind: PoolKind,
    /// Workers, 1 to 1,000. Default: twice the cores, at most 32.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Tasks that may wait in it; beyond, submits are refused; 1 to 100,000,000. Default 1,000,000.
    #[serde(default = "default_queue_limit")]
    pub queue_limit: usize,
    /// Time-out of an attempt when neither task nor handler says, 1ms to 24h. Default 300s.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
    /// When a submission is acknowledged if the task does not say. Default "fsync".
    #[serde(default)]
    pub durability: Durability,
    /// Starts no task until it is resumed. Default false.
    #[serde(default)]
    pub paused: bool,
}

/// What drives the workers of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// An operating-system thread each; for anything that computes.
    #[default]
    Threads,
    /// A task on the runtime each; for work that only waits.
    Async,
}

/// When a submission is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is on disk.
    #[default]
    Fsync,
    /// At once; may be lost by a crash.
    Memory,
}

impl Pool {
    /// A pool of that name with every setting at its default.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            description: String::new(),
            kind: PoolKind::Threads,
            size: default_size(),
            queue_limit: default_queue_limit(),
            timeout: default_timeout(),
            durability: Durability::Fsync,
            paused: false,
        }
    }

    /// The same for the scheduler; `None` when the name is not valid.
    pub(super) fn spec(&self) -> Option<PoolSpec> {
        Some(PoolSpec {
            name: PoolName::parse(&self.name).ok()?,
            description: self.description.clone(),
            kind: match self.kind {
                PoolKind::Threads => model::PoolKind::Threads,
                PoolKind::Async => model::PoolKind::Async,
            },
            size: self.size,
            queue_limit: self.queue_limit,
            timeout: self.timeout.0,
            durability: match self.durability {
                Durability::Fsync => model::Durability::Fsync,
                Durability::Memory => model::Durability::Memory,
            },
            paused: self.paused,
        })
    }

    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        if let Err(error) = id::check_name(&self.name) {
            problems.add(format!("{path}.name"), format!("{:?}", self.name), error.to_string());
        }
        problems.within(format!("{path}.size"), self.size, 1, limits::POOL_SIZE_MAX);
        problems.within(format!("{path}.queue_limit"), self.queue_limit, 1, QUEUE_LIMIT_MAX);
        let (min, max) = (HumanDuration(limits::TIMEOUT_MIN), HumanDuration(limits::TIMEOUT_MAX));
        problems.within(format!("{path}.timeout"), self.timeout, min, max);
    }
}

fn defaults() -> PoolSpec {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let name = PoolName::parse(DEFAULT_NAME).expect("the default name is valid");
    PoolSpec::with_defaults(name, cores)
}

fn default_size() -> usize {
    defaults().size
}

fn default_queue_limit() -> usize {
    defaults().queue_limit
}

fn default_timeout() -> HumanDuration {
    HumanDuration(limits::TIMEOUT_DEFAULT)
}
