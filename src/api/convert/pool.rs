//! Pools, their metrics, and pool updates.

use crate::model::{Autoscale, Charge, DurationStats, PoolKind, PoolName, Priority, WeightRule, limits};
use crate::proto::v1;
use crate::scheduler::{
    Decision, DecisionReason, PoolMetrics, PoolSnapshot, PoolUpdate, PoolView, Rivals, WorkerStats,
};

use super::invalid_fields::InvalidFields;
use super::numbers::{to_i32, to_i64};
use super::task::{durability, priority};
use super::time::{duration, timestamp};

const QUEUE_LIMIT_MAX: i64 = 100_000_000;

/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn update(request: v1::UpdatePoolRequest) -> Result<PoolUpdate, InvalidFields> {
    let mut invalid = InvalidFields::default();
    let name = invalid.parsed("name", PoolName::parse(&request.name));
    let size = request.size.map(|size| usize::try_from(size).unwrap_or(0));
    if size.is_some_and(|size| !(1..=limits::POOL_SIZE_MAX).contains(&size)) {
        let given = request.size.unwrap_or_default();
        invalid.add("size", format!("is {given}, must be from 1 to {}", limits::POOL_SIZE_MAX));
    }
    if let Some(limit) = request.queue_limit.filter(|limit| !(1..=QUEUE_LIMIT_MAX).contains(limit)) {
        invalid.add("queue_limit", format!("is {limit}, must be from 1 to {QUEUE_LIMIT_MAX}"));
    }
    invalid.check_length("etag", request.etag.len(), limits::NAME_BYTES_MAX, "bytes");
    let Some(name) = name else { return Err(invalid) };
    invalid.check()?;
    Ok(PoolUpdate {
        name,
        size,
        paused: request.paused,
        queue_limit: request.queue_limit.and_then(|limit| usize::try_from(limit).ok()),
        etag: (!request.etag.is_empty()).then_some(request.etag),
    })
}

pub fn pool(view: PoolView) -> v1::Pool {
    let PoolView { spec, etag } = view;
    let kind = match spec.kind {
        PoolKind::Threads => v1::PoolKind::Threads,
        PoolKind::Async => v1::PoolKind::Async,
        PoolKind::Remote => v1::PoolKind::Remote,
    };
    v1::Pool {
        name: spec.name.to_string(),
        description: spec.description,
        kind: kind.into(),
        size: to_i32(spec.size),
        paused: spec.paused,
        queue_limit: to_i64(spec.queue_limit),
        default_timeout: Some(duration(spec.timeout)),
        durability: durability(spec.durability),
        etag,
        namespaces: spec.namespaces.iter().map(ToString::to_string).collect(),
        max_running_per_namespace: spec.max_running_per_namespace.map_or(0, to_i32),
        weights: spec.weights.0.iter().map(weight).collect(),
        charge: match spec.charge {
            Charge::Tasks => v1::PoolCharge::Tasks,
            Charge::SlotTime => v1::PoolCharge::SlotTime,
        }
        .into(),
        max_wait: spec.max_wait.map(duration),
        autoscale: spec
            .autoscale
            .map(|Autoscale { min, max }| v1::PoolAutoscale { min: to_i32(min), max: to_i32(max) }),
    }
}

fn weight(rule: &WeightRule) -> v1::PoolWeight {
    v1::PoolWeight {
        namespace: rule.namespace.to_string(),
        fairness_key: rule.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        weight: rule.weight.as_f64(),
    }
}

pub fn decision(decision: &Decision) -> v1::Decision {
    let (reason, rivals) = match decision.reason {
        DecisionReason::Turn(rivals) => (v1::DecisionReason::Turn, rivals),
        DecisionReason::Promoted(rivals) => (v1::DecisionReason::Promoted, rivals),
        DecisionReason::Trial => (v1::DecisionReason::Trial, Rivals::default()),
    };
    let (started_at, worker) = decision.start.as_ref().map(|(at, worker)| (timestamp(*at), worker.to_string())).unzip();
    v1::Decision {
        time: Some(timestamp(decision.at)),
        task_id: decision.task.to_string(),
        attempt: to_i32(decision.attempt),
        handler: decision.handler.to_string(),
        priority: priority(decision.priority),
        namespace: decision.namespace.to_string(),
        fairness_key: decision.fairness_key.as_ref().map(ToString::to_string).unwrap_or_default(),
        wait: Some(duration(decision.at.since(decision.eligible_at))),
        reason: reason.into(),
        other_namespaces: rivals.namespaces.into(),
        other_fairness_keys: rivals.keys.into(),
        started_at,
        worker: worker.unwrap_or_default(),
        expected_time: decision.expected_time().map(duration),
    }
}

/// Converts metrics. The rates are 0.
pub fn metrics(metrics: PoolMetrics) -> v1::PoolMetrics {
    let PoolMetrics { at, snapshot, stats, workers } = metrics;
    let oldest_wait = snapshot.oldest_wait();
    let PoolSnapshot { spec, counters, .. } = snapshot;
    let ended = counters.completed + counters.failed;
    let depth = |priority_of: Priority| v1::PriorityDepth {
        priority: priority(priority_of),
        queued: to_i64(snapshot.queued_by_priority[priority_of.index()]),
        oldest_wait: Some(duration(snapshot.oldest_wait_by_priority[priority_of.index()])),
    };
    v1::PoolMetrics {
        pool: spec.name.to_string(),
        time: Some(timestamp(at)),
        size: to_i32(spec.size),
        busy: to_i32(stats.busy),
        idle: to_i32(stats.idle),
        paused: spec.paused,
        queued: to_i64(snapshot.queued),
        waiting: to_i64(snapshot.waiting),
        running: to_i64(snapshot.running),
        priorities: Priority::DESCENDING.map(depth).to_vec(),
        oldest_wait: Some(duration(oldest_wait)),
        counters_since: Some(timestamp(snapshot.counters_since)),
        submitted: to_i64(counters.submitted),
        completed: to_i64(counters.completed),
        failed: to_i64(counters.failed),
        cancelled: to_i64(counters.cancelled),
        retried: to_i64(counters.retried),
        attempts: to_i64(counters.attempts),
        success_rate: ratio(counters.completed, ended).unwrap_or(1.0),
        submit_rate: 0.0,
        finish_rate: 0.0,
        wait_time: Some(percentiles(&snapshot.wait_time)),
        run_time: Some(percentiles(&snapshot.run_time)),
        utilization: ratio(stats.busy as u64, spec.size as u64).unwrap_or(0.0),
        deleted: to_i64(counters.deleted),
        without_worker: to_i64(snapshot.without_worker),
        workers: workers.into_iter().map(|row| worker(row, &spec.name)).collect(),
    }
}

fn ratio(part: u64, total: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs at most 53 bits")]
    (total > 0).then(|| part as f64 / total as f64)
}

pub fn percentiles(times: &DurationStats) -> v1::Percentiles {
    v1::Percentiles {
        count: to_i64(times.count),
        p50: Some(duration(times.p50)),
        p90: Some(duration(times.p90)),
        p99: Some(duration(times.p99)),
        max: Some(duration(times.max)),
    }
}

fn worker(row: WorkerStats, pool: &PoolName) -> v1::Worker {
    let (task, handler) =
        row.current.map(|(task, handler)| (task.to_string(), handler.to_string())).unwrap_or_default();
    v1::Worker {
        name: row.name,
        pool: pool.to_string(),
        alive: row.alive,
        busy: row.busy,
        current_task_id: task,
        current_handler: handler,
        completed: to_i64(row.completed),
        failed: to_i64(row.failed),
        busy_time: Some(duration(row.busy_time)),
        idle_time: Some(duration(row.idle_time)),
        remote: row.remote.map(|remote| v1::RemoteWorker {
            connected: remote.is_connected,
            slots: to_i32(remote.slots),
            running: to_i32(remote.running),
            handlers: remote.handlers.iter().map(ToString::to_string).collect(),
            labels: remote.labels.into_iter().collect(),
            version: remote.version,
        }),
    }
}
