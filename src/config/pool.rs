//! Section `[[pool]]`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::server::queue_limit_default;
use super::units::HumanDuration;
use crate::model::{
    self, KeyPattern, Namespace, PoolName, PoolSpec, WEIGHTS_MAX, Weight, WeightRule, Weights, id, limits,
};

/// Name of the pool that exists if none is configured.
pub const DEFAULT_POOL: &str = "default";
/// Name of the pool for remote workers that exists if none is configured.
pub const REMOTE_POOL: &str = "remote";
/// Name of the pool for functions of the program that the server is a part of, if it has some and none is configured.
pub const FUNCTION_POOL: &str = "functions";
pub const QUEUE_LIMIT_MAX: usize = 100_000_000;

/// `[[pool]]`: a named set of workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Name: 1 to 64 letters, digits or . _ : - characters. Required.
    pub name: String,
    /// Description for people. Default: "".
    #[serde(default)]
    pub description: String,
    /// Kind of worker: "threads", "async" or "remote". Default: "threads".
    #[serde(default)]
    pub kind: PoolKind,
    /// Number of workers, 1 to 1,000; not for kind = "remote", which has the slots of the workers that are connected.
    /// Default: twice the number of CPU cores, at most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Bounds of the number of workers, instead of `size`: the pool has `min` workers at first, more while tasks wait and the CPU has
    /// room, and fewer when it has not needed them for half a minute. Not for kind = "remote". Default: a fixed size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// Maximum number of queued tasks, 1 to 100,000,000; further submissions fail with QUEUE_FULL. Default: 1,000,000, and less
    /// if the server may use less than 2GiB of memory: 55,924 with 256MiB, 139,810 with 512MiB, 496,325 with 1GiB.
    #[serde(default = "default_queue_limit")]
    pub queue_limit: usize,
    /// Namespaces whose tasks the pool takes; others cannot be submitted to it. A worker of a remote pool needs its role only
    /// in these. Tasks that were accepted before the setting was changed stay in the pool. Default: all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Maximum number of tasks of one namespace that run at once, 1 to 1,000. Other namespaces always have the rest of the
    /// workers. Default: no limit.
    #[serde(default)]
    pub max_running_per_namespace: Option<usize>,
    /// What part of the slots namespaces and fairness keys get while their tasks wait with the same priority, at most 100 entries.
    /// Default: equal parts.
    #[serde(default)]
    pub weights: Vec<PoolWeight>,
    /// What namespaces and fairness keys are charged for a task: "tasks", the same for each, or "slot_time", the time for which it has
    /// a worker, so that a key whose tasks run long gets fewer of them. Default: "tasks".
    #[serde(default)]
    pub charge: Charge,
    /// Time after which tasks that wait behind those of higher priorities are promoted, 1ms to 365d: while the oldest task of a priority
    /// has waited longer, one of four tasks that are given to the pool is of that priority. Default: never, a priority waits as long as
    /// there are tasks of higher ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<HumanDuration>,
    /// Timeout of an attempt if neither the task nor its handler sets one, 1ms to 24h. Default: 5m.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
    /// When a submission is acknowledged if the task does not choose: "fsync" or "memory". Default: "fsync".
    #[serde(default)]
    pub durability: Durability,
    /// Starts no tasks until the pool is resumed. Default: false.
    #[serde(default)]
    pub paused: bool,
}

/// `autoscale`: bounds of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscale {
    /// Smallest number of workers, at least 1. Default: 1.
    #[serde(default = "autoscale_min_default")]
    pub min: usize,
    /// Largest number of workers, from `min` to 1,000. Required.
    pub max: usize,
}

/// `[[pool.weights]]`: the weight of a namespace, or of fairness keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolWeight {
    /// Namespace. Default: "default".
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// A fairness key, or the beginning of some and `*`: each of them has this weight among the keys of the namespace; of several
    /// that match, the first one counts. Default: the weight is that of the namespace among others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness_key: Option<String>,
    /// 0.01 to 100; everything without a weight has 1. Required.
    pub weight: f64,
}

/// Kind of worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// A thread per worker, for handlers that use the CPU.
    #[default]
    Threads,
    /// An async task per worker, for handlers that only wait.
    Async,
    /// Programs that connect to the server, for handlers with runner = "remote" and those that the programs register.
    Remote,
}

/// What namespaces and fairness keys are charged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Charge {
    /// Each attempt costs the same.
    #[default]
    Tasks,
    /// An attempt costs the time for which it has a worker.
    SlotTime,
}

/// When a submission is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the task is synced to disk.
    #[default]
    Fsync,
    /// After the task is written, but not synced: a power failure can lose it, a crash of the server cannot.
    Memory,
}

impl Pool {
    /// A pool with default settings.
    pub(super) fn new(name: &str, kind: PoolKind) -> Self {
        Self {
            name: name.to_owned(),
            description: String::new(),
            kind,
            size: None,
            autoscale: None,
            queue_limit: default_queue_limit(),
            namespaces: Vec::new(),
            max_running_per_namespace: None,
            weights: Vec::new(),
            charge: Charge::Tasks,
            max_wait: None,
            timeout: default_timeout(),
            durability: Durability::Fsync,
            paused: false,
        }
    }

    /// The largest number of workers that the server starts.
    pub fn local_workers(&self) -> usize {
        match self.kind {
            PoolKind::Threads | PoolKind::Async => {
                self.autoscale.map_or_else(|| self.size.unwrap_or_else(default_size), |bounds| bounds.max)
            }
            PoolKind::Remote => 0,
        }
    }

    /// Sets the default size, except for a remote pool and one that autoscales.
    pub(super) fn add_size(&mut self) {
        if self.kind != PoolKind::Remote && self.autoscale.is_none() {
            self.size.get_or_insert_with(default_size);
        }
    }

    /// Converts to the model; `None` if the name is invalid.
    pub(super) fn spec(&self) -> Option<PoolSpec> {
        Some(PoolSpec {
            name: PoolName::parse(&self.name).ok()?,
            description: self.description.clone(),
            kind: match self.kind {
                PoolKind::Threads => model::PoolKind::Threads,
                PoolKind::Async => model::PoolKind::Async,
                PoolKind::Remote => model::PoolKind::Remote,
            },
            size: self.autoscale.map_or_else(|| self.local_workers(), |bounds| bounds.min),
            autoscale: self.autoscale.map(|Autoscale { min, max }| model::Autoscale { min, max }),
            queue_limit: self.queue_limit,
            namespaces: self.namespaces.iter().map(|name| Namespace::parse(name).ok()).collect::<Option<_>>()?,
            max_running_per_namespace: self.max_running_per_namespace,
            weights: Arc::new(Weights(self.weights.iter().map(PoolWeight::rule).collect::<Option<_>>()?)),
            charge: match self.charge {
                Charge::Tasks => model::Charge::Tasks,
                Charge::SlotTime => model::Charge::SlotTime,
            },
            max_wait: self.max_wait.map(|wait| wait.0),
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
        match self.size {
            Some(size) if self.kind == PoolKind::Remote => problems.add(
                format!("{path}.size"),
                size.to_string(),
                "is not allowed for kind = \"remote\": the pool has the slots of the workers that are connected",
            ),
            Some(size) => problems.check_range(format!("{path}.size"), size, 1, limits::POOL_SIZE_MAX),
            None => {}
        }
        if let Some(bounds) = self.autoscale {
            self.check_autoscale(bounds, &format!("{path}.autoscale"), problems);
        }
        problems.check_range(format!("{path}.queue_limit"), self.queue_limit, 1, QUEUE_LIMIT_MAX);
        for (index, name) in self.namespaces.iter().enumerate() {
            if let Err(error) = Namespace::parse(name) {
                problems.add(format!("{path}.namespaces[{index}]"), format!("{name:?}"), error.to_string());
            }
        }
        if let Some(limit) = self.max_running_per_namespace {
            problems.check_range(format!("{path}.max_running_per_namespace"), limit, 1, limits::POOL_SIZE_MAX);
        }
        if self.weights.len() > WEIGHTS_MAX {
            let count = format!("{} entries", self.weights.len());
            problems.add(format!("{path}.weights"), count, format!("must have at most {WEIGHTS_MAX}"));
        }
        for (index, weight) in self.weights.iter().enumerate() {
            let path = format!("{path}.weights[{index}]");
            weight.check(&path, problems);
            let is_same =
                |other: &PoolWeight| other.namespace == weight.namespace && other.fairness_key == weight.fairness_key;
            if self.weights[..index].iter().any(is_same) {
                problems.add(path, "", "repeats the namespace and the fairness key of another weight");
            }
        }
        if let Some(wait) = self.max_wait {
            let (min, max) = (HumanDuration(limits::TIMEOUT_MIN), HumanDuration(limits::DELAY_MAX));
            problems.check_range(format!("{path}.max_wait"), wait, min, max);
        }
        let (min, max) = (HumanDuration(limits::TIMEOUT_MIN), HumanDuration(limits::TIMEOUT_MAX));
        problems.check_range(format!("{path}.timeout"), self.timeout, min, max);
    }

    fn check_autoscale(&self, bounds: Autoscale, path: &str, problems: &mut Problems) {
        if self.kind == PoolKind::Remote {
            let text = "is not allowed for kind = \"remote\": the pool has the slots of the workers that are connected";
            return problems.add(path, bounds.written(), text);
        }
        if self.size.is_some() {
            problems.add(path, bounds.written(), "excludes `size`; remove one of them");
        }
        problems.check_range(format!("{path}.min"), bounds.min, 1, limits::POOL_SIZE_MAX);
        if bounds.min <= limits::POOL_SIZE_MAX {
            problems.check_range(format!("{path}.max"), bounds.max, bounds.min.max(1), limits::POOL_SIZE_MAX);
        }
    }
}

impl Autoscale {
    fn written(self) -> String {
        format!("{{ min = {}, max = {} }}", self.min, self.max)
    }
}

impl PoolWeight {
    /// `None` if it is invalid.
    fn rule(&self) -> Option<WeightRule> {
        Some(WeightRule {
            namespace: Namespace::parse(&self.namespace).ok()?,
            key: self.fairness_key.as_deref().map(KeyPattern::parse).transpose().ok()?,
            weight: Weight::new(self.weight)?,
        })
    }

    fn check(&self, path: &str, problems: &mut Problems) {
        if let Err(error) = Namespace::parse(&self.namespace) {
            problems.add(format!("{path}.namespace"), format!("{:?}", self.namespace), error.to_string());
        }
        if let Some(key) = &self.fairness_key
            && let Err(error) = KeyPattern::parse(key)
        {
            problems.add(format!("{path}.fairness_key"), format!("{key:?}"), error);
        }
        problems.check_range(format!("{path}.weight"), self.weight, Weight::MIN, Weight::MAX);
    }
}

fn autoscale_min_default() -> usize {
    1
}

fn default_namespace() -> String {
    Namespace::default().to_string()
}

fn defaults() -> PoolSpec {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let name = PoolName::parse(DEFAULT_POOL).expect("the default name is valid");
    PoolSpec { queue_limit: queue_limit_default(), ..PoolSpec::with_defaults(name, cores) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError, Overrides, load};

    fn load_text(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(Some(file.path()), [], Overrides::default())
    }

    fn name(name: &str) -> PoolName {
        PoolName::parse(name).unwrap()
    }

    #[test]
    fn a_pool_has_bounds_instead_of_a_size() {
        let config = load_text("[[pool]]\nname = \"a\"\nautoscale = { max = 9 }\n[[pool]]\nname = \"b\"\n").unwrap();
        let catalog = config.catalog();
        let spec = &catalog.pools[&name("a")];
        assert_eq!((spec.size, spec.autoscale), (1, Some(model::Autoscale { min: 1, max: 9 })));
        assert_eq!((config.pools[0].size, config.pools[0].local_workers()), (None, 9));
        assert_eq!(catalog.pools[&name("b")].autoscale, None);
        for (bounds, field) in [
            ("size = 3\nautoscale = { max = 9 }", "pool[0].autoscale"),
            ("kind = \"remote\"\nautoscale = { max = 9 }", "pool[0].autoscale"),
            ("autoscale = { min = 0, max = 9 }", "pool[0].autoscale.min"),
            ("autoscale = { min = 5, max = 4 }", "pool[0].autoscale.max"),
            ("autoscale = { max = 1001 }", "pool[0].autoscale.max"),
            ("autoscale = { min = 2 }", "pool[0].autoscale"),
            ("autoscale = { max = 2, cpu = 1 }", "pool[0].autoscale.cpu"),
        ] {
            let error = load_text(&format!("builtins = false\n[[pool]]\nname = \"a\"\n{bounds}\n")).unwrap_err();
            let fields: Vec<_> = error.problems().iter().map(|problem| &*problem.field).collect();
            assert_eq!(fields, [field], "{error}");
            assert!(!error.problems()[0].location.is_empty(), "{error}");
        }
    }
}
