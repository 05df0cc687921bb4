//! A pool as the operator described it.

use std::time::Duration;

use super::id::PoolName;

/// What drives the workers of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolKind {
    /// An operating-system thread each; for anything that computes.
    #[default]
    Threads,
    /// A task on the runtime each; for work that only waits.
    Async,
}

/// When a submission is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Durability {
    /// When it is on disk.
    #[default]
    Fsync = 1,
    /// At once; may be lost by a crash.
    Memory = 2,
}

/// A named set of workers.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// Its name.
    pub name: PoolName,
    /// For people.
    pub description: String,
    /// What drives its workers.
    pub kind: PoolKind,
    /// Workers, 1 to 1,000.
    pub size: usize,
    /// Tasks that may wait in it (WAITING and QUEUED); beyond, submits are refused.
    pub queue_limit: usize,
    /// Time-out of an attempt when neither task nor handler says.
    pub timeout: Duration,
    /// Promise of an acknowledgement when the task does not say.
    pub durability: Durability,
    /// Starts nothing while true.
    pub paused: bool,
}

impl PoolSpec {
    /// A pool of that name with the defaults: `min(32, 2 × cores)` threads, 1,000,000 waiting tasks.
    pub fn with_defaults(name: PoolName, cores: usize) -> Self {
        Self {
            name,
            description: String::new(),
            kind: PoolKind::Threads,
            size: (2 * cores).clamp(1, 32),
            queue_limit: 1_000_000,
            timeout: super::limits::TIMEOUT_DEFAULT,
            durability: Durability::Fsync,
            paused: false,
        }
    }
}
