//! What the pools did in the last hours, in memory: for charts of a longer time than a client has watched.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::convert::numbers::{to_i32, to_i64};
use crate::api::convert::time::{duration, timestamp};
use crate::model::{PoolName, Priority, Timestamp};
use crate::proto::v1;
use crate::scheduler::{Handle, PoolMetrics};

const INTERVAL: Duration = Duration::from_secs(15);
/// Samples of 6 hours: about 200 KiB for each pool.
const KEPT: usize = 6 * 3_600 / 15;
/// Pools with samples of their own. All pools count in the sum.
const POOLS_MAX: usize = 100;

/// Cheap to clone; all clones have the same samples.
#[derive(Clone, Default)]
pub struct PoolHistory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    before: HashMap<PoolName, Reading>,
    all: VecDeque<Sample>,
    by_pool: HashMap<PoolName, VecDeque<Sample>>,
}

/// Counters and state of a pool at a time.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Timestamp,
    counters_since: Timestamp,
    /// Submitted, completed, failed, cancelled.
    counters: [u64; 4],
    load: Load,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    /// By priority index.
    queued: [u64; Priority::COUNT],
    waiting: u64,
    running: u64,
    busy: usize,
    slots: usize,
    oldest_wait: Duration,
}

/// An interval: its end, tasks per second as the counters of a [`Reading`], and the load at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    at: Timestamp,
    rates: [f64; 4],
    load: Load,
}

impl PoolHistory {
    /// Reads the pools at the interval, until `stop`.
    pub async fn run(self, handle: Handle, stop: CancellationToken) {
        let mut interval = interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = stop.cancelled() => return,
            }
            // A scheduler that does not respond leaves a gap.
            if let Ok((pools, _)) = handle.pool_metrics(Vec::new(), false).await {
                let readings = pools.iter().map(|pool| (pool.snapshot.spec.name.clone(), Reading::of(pool)));
                self.0.lock().add(readings.collect());
            }
        }
    }

    /// The samples after a time: of a pool, or of all pools together.
    pub fn read(&self, pool: Option<&PoolName>, after: Option<Timestamp>) -> v1::GetPoolHistoryResponse {
        let state = self.0.lock();
        let samples = pool.map_or(Some(&state.all), |name| state.by_pool.get(name));
        let samples = samples.into_iter().flatten().filter(|sample| after.is_none_or(|after| sample.at > after));
        v1::GetPoolHistoryResponse {
            samples: samples.map(Sample::message).collect(),
            interval: Some(duration(INTERVAL)),
        }
    }
}

impl State {
    fn add(&mut self, readings: Vec<(PoolName, Reading)>) {
        let before = std::mem::take(&mut self.before);
        let mut all: Option<Sample> = None;
        self.by_pool.retain(|name, _| readings.iter().any(|(present, _)| present == name));
        for (name, reading) in readings {
            if let Some(sample) = before.get(&name).and_then(|before| reading.sample_since(before)) {
                all = Some(all.map_or(sample, |sum| sum.plus(&sample)));
                if self.by_pool.len() < POOLS_MAX || self.by_pool.contains_key(&name) {
                    push(self.by_pool.entry(name.clone()).or_default(), sample);
                }
            }
            self.before.insert(name, reading);
        }
        if let Some(sample) = all {
            push(&mut self.all, sample);
        }
    }
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample) {
    if samples.len() >= KEPT {
        samples.pop_front();
    }
    samples.push_back(sample);
}

impl Reading {
    fn of(metrics: &PoolMetrics) -> Self {
        let PoolMetrics { at, snapshot, stats, .. } = metrics;
        let counters = &snapshot.counters;
        Self {
            at: *at,
            counters_since: snapshot.counters_since,
            counters: [counters.submitted, counters.completed, counters.failed, counters.cancelled],
            load: Load {
                queued: snapshot.queued_by_priority,
                waiting: snapshot.waiting,
                running: snapshot.running,
                busy: stats.busy,
                slots: snapshot.spec.size.max(stats.busy + stats.idle),
                oldest_wait: snapshot.oldest_wait(),
            },
        }
    }

    /// `None` if no time has passed.
    fn sample_since(&self, before: &Self) -> Option<Sample> {
        let seconds = self.at.since(before.at).as_secs_f64();
        let is_reset = self.counters_since != before.counters_since;
        #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
        let rate = |counter: usize| {
            let earlier = if is_reset { 0 } else { before.counters[counter] };
            self.counters[counter].saturating_sub(earlier) as f64 / seconds
        };
        (seconds > 0.0).then(|| Sample { at: self.at, rates: std::array::from_fn(rate), load: self.load })
    }
}

impl Sample {
    fn plus(self, other: &Self) -> Self {
        let (a, b) = (self.load, other.load);
        Self {
            at: self.at.max(other.at),
            rates: std::array::from_fn(|counter| self.rates[counter] + other.rates[counter]),
            load: Load {
                queued: std::array::from_fn(|priority| a.queued[priority] + b.queued[priority]),
                waiting: a.waiting + b.waiting,
                running: a.running + b.running,
                busy: a.busy + b.busy,
                slots: a.slots + b.slots,
                oldest_wait: a.oldest_wait.max(b.oldest_wait),
            },
        }
    }

    fn message(&self) -> v1::PoolSample {
        let [submit_rate, complete_rate, fail_rate, cancel_rate] = self.rates;
        v1::PoolSample {
            time: Some(timestamp(self.at)),
            submit_rate,
            complete_rate,
            fail_rate,
            cancel_rate,
            queued: self.load.queued.map(to_i64).to_vec(),
            waiting: to_i64(self.load.waiting),
            running: to_i64(self.load.running),
            busy: to_i32(self.load.busy),
            slots: to_i32(self.load.slots),
            oldest_wait: Some(duration(self.load.oldest_wait)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: u64, submitted: u64, reset: u64) -> Reading {
        let load = Load { queued: [1, 2, 0, 0], busy: 1, slots: 4, ..Load::default() };
        let (at, counters_since) = (Timestamp(seconds * 1_000_000), Timestamp(reset));
        Reading { at, counters_since, counters: [submitted, 0, 0, 0], load }
    }

    fn name(text: &str) -> PoolName {
        PoolName::parse(text).unwrap()
    }

    fn rates(response: &v1::GetPoolHistoryResponse) -> Vec<f64> {
        response.samples.iter().map(|sample| sample.submit_rate).collect()
    }

    #[test]
    fn rates_are_those_since_the_sample_before_and_begin_again_after_a_reset() {
        let history = PoolHistory::default();
        for (seconds, submitted, reset) in [(0, 100, 1), (10, 150, 1), (20, 30, 2), (20, 30, 2)] {
            history.0.lock().add(vec![(name("a"), reading(seconds, submitted, reset))]);
        }
        assert_eq!(rates(&history.read(Some(&name("a")), None)), [5.0, 3.0]);
        assert_eq!(rates(&history.read(None, Some(Timestamp(10_000_000)))), [3.0]);
    }

    #[test]
    fn the_sum_has_all_pools_and_a_pool_that_is_gone_has_no_samples() {
        let history = PoolHistory::default();
        let both =
            |seconds| vec![(name("a"), reading(seconds, seconds, 1)), (name("b"), reading(seconds, 2 * seconds, 1))];
        history.0.lock().add(both(0));
        history.0.lock().add(both(10));
        let all = history.read(None, None);
        assert_eq!(rates(&all), [3.0]);
        assert_eq!((&all.samples[0].queued[..], all.samples[0].busy, all.samples[0].slots), (&[2, 4, 0, 0][..], 2, 8));
        history.0.lock().add(vec![(name("b"), reading(20, 40, 1))]);
        assert_eq!(rates(&history.read(Some(&name("a")), None)), [0.0; 0]);
        assert_eq!(rates(&history.read(Some(&name("b")), None)), [2.0, 2.0]);
    }

    #[test]
    fn the_samples_of_six_hours_are_kept() {
        let history = PoolHistory::default();
        for seconds in 0..KEPT as u64 + 10 {
            history.0.lock().add(vec![(name("a"), reading(seconds, 0, 1))]);
        }
        assert_eq!(history.read(None, None).samples.len(), KEPT);
        let newest = Timestamp((KEPT as u64 + 8) * 1_000_000);
        assert_eq!(history.read(None, Some(newest)).samples.len(), 1);
    }
}
