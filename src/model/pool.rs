//! Pool settings.

use std::sync::Arc;
use std::time::Duration;

use super::fairness::Weights;
use super::id::{Namespace, PoolName};

/// What the workers of a pool are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolKind {
    /// Operating-system threads; for handlers that use the CPU.
    #[default]
    Threads,
    /// Tasks of the async runtime; for handlers that only wait.
    Async,
    /// Programs of users, connected to the server. The slots are those of the workers that are connected.
    Remote,
}

impl PoolKind {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Async => "async",
            Self::Remote => "remote",
        }
    }
}

/// When a submission is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Durability {
    /// When it is on the disk.
    #[default]
    Fsync = 1,
    /// When it is written, but not synced; a power failure can lose it, a crash of the server cannot.
    Memory = 2,
}

/// What namespaces and fairness keys are charged for a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charge {
    /// The same for each attempt.
    #[default]
    Tasks,
    /// The time for which it has a slot.
    SlotTime,
}

/// Bounds of the number of workers of a pool that grows and shrinks with its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoscale {
    /// At least 1.
    pub min: usize,
    /// At least `min`.
    pub max: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    pub name: PoolName,
    pub description: String,
    pub kind: PoolKind,
    /// Workers, 1 to 1,000; 0 in a remote pool. The present number if the pool autoscales.
    pub size: usize,
    /// `None`: the size is a setting.
    pub autoscale: Option<Autoscale>,
    /// Maximum number of WAITING and QUEUED tasks; further submissions are refused.
    pub queue_limit: usize,
    /// Namespaces whose tasks it takes; empty: all.
    pub namespaces: Vec<Namespace>,
    /// Attempts of one namespace that may run at once; `None`: no limit.
    pub max_running_per_namespace: Option<usize>,
    /// What part of the slots namespaces and fairness keys get.
    pub weights: Arc<Weights>,
    pub charge: Charge,
    /// Time after which tasks that wait behind those of higher priorities start before some of these; `None`: never.
    pub max_wait: Option<Duration>,
    /// Timeout of an attempt if neither the task nor the handler sets one.
    pub timeout: Duration,
    /// Durability of tasks that do not set one.
    pub durability: Durability,
    /// A paused pool starts no attempts.
    pub paused: bool,
}

/// The settings of a pool that can be changed while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// 0 in a pool whose size is no setting.
    pub size: usize,
    pub queue_limit: usize,
    pub paused: bool,
}

impl PoolSettings {
    pub fn of(spec: &PoolSpec) -> Self {
        let size = if spec.has_fixed_size() { spec.size } else { 0 };
        Self { size, queue_limit: spec.queue_limit, paused: spec.paused }
    }
}

impl PoolSpec {
    /// Whether tasks of the namespace may run in the pool.
    pub fn takes(&self, namespace: &Namespace) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }

    /// Whether the size is a setting. Otherwise it follows the workers of users that are connected, or the work.
    pub fn has_fixed_size(&self) -> bool {
        self.kind != PoolKind::Remote && self.autoscale.is_none()
    }

    /// Defaults: `min(32, 2 × cores)` threads, 1,000,000 waiting tasks.
    pub fn with_defaults(name: PoolName, cores: usize) -> Self {
        Self {
            name,
            description: String::new(),
            kind: PoolKind::Threads,
            size: (2 * cores).clamp(1, 32),
            autoscale: None,
            queue_limit: 1_000_000,
            namespaces: Vec::new(),
            max_running_per_namespace: None,
            weights: Arc::default(),
            charge: Charge::Tasks,
            max_wait: None,
            timeout: super::limits::TIMEOUT_DEFAULT,
            durability: Durability::Fsync,
            paused: false,
        }
    }
}
