//! How much of the CPU is in use that this process may use: the cores that it may run on, or the quota of its control groups.
//!
//! The use of all processes counts, since a handler can be a program. Where most of it is not of the control group of this process,
//! only that of the group counts: others that keep the cores busy are no reason to do less. Version 1 of control groups is not read;
//! there all of it counts.

use std::fs;
use std::path::Path;

use tokio::time::Instant;

use super::control_groups::{ControlGroups, number_of};

/// Measures between two calls.
#[derive(Debug)]
pub struct CpuSampler(Reading);

#[derive(Clone, Debug, PartialEq)]
struct Reading {
    at: Instant,
    cores: Option<CoreTimes>,
    /// Time that the control group of this process has used.
    own_us: Option<u64>,
    groups: Vec<Quota>,
}

/// Of the cores on which the process may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CoreTimes {
    count: u32,
    /// As the kernel counts it.
    busy: u64,
    total: u64,
}

/// What a control group with a quota has used.
#[derive(Clone, Debug, PartialEq)]
struct Quota {
    cores: f64,
    used_us: u64,
}

impl CpuSampler {
    /// Takes the first measurement, which the next one is compared with.
    pub fn new() -> Self {
        Self(Reading::now())
    }

    /// Share that was in use since the last call, 0 to 1; 0 if the system does not report it. Reads a few small files.
    pub fn share(&mut self) -> f64 {
        let now = Reading::now();
        let share = now.share_since(&self.0);
        self.0 = now;
        share
    }
}

impl Reading {
    fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let groups = ControlGroups::of_this_process();
        Self {
            at: Instant::now(),
            cores: core_times(&read("/proc/stat"), allowed),
            own_us: groups.version_2().next().and_then(|own| used_us(&own)),
            groups: groups.version_2().filter_map(|group| quota(&group)).collect(),
        }
    }

    /// The group of which the largest share is used counts, or the cores if that is more.
    #[expect(clippy::cast_precision_loss, reason = "a share needs few bits")]
    fn share_since(&self, earlier: &Self) -> f64 {
        let elapsed = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        let part = |now: u64, before: u64, cores: f64| {
            let used = now.saturating_sub(before) as f64 / 1e6;
            if elapsed > 0.0 { used / (elapsed * cores) } else { 0.0 }
        };
        let cores = self.cores.zip(earlier.cores).map_or(0.0, |(now, before)| {
            let total = now.total.saturating_sub(before.total);
            let all = if total == 0 { 0.0 } else { now.busy.saturating_sub(before.busy) as f64 / total as f64 };
            let own = self.own_us.zip(earlier.own_us).map(|(used, before)| part(used, before, now.count.into()));
            own.filter(|own| 2.0 * own < all).unwrap_or(all)
        });
        let of_group = |(now, before): (&Quota, &Quota)| part(now.used_us, before.used_us, now.cores);
        self.groups.iter().zip(&earlier.groups).map(of_group).fold(cores, f64::max).min(1.0)
    }
}

/// The times of the allowed cores, such as `0-3,8`, as `/proc/stat` has them.
fn core_times(stat: &str, allowed: &str) -> Option<CoreTimes> {
    let ranges = allowed.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    });
    let ranges: Vec<_> = ranges.collect();
    let is_allowed = |core: u32| ranges.is_empty() || ranges.iter().any(|range| range.contains(&core));
    let times = stat.lines().filter_map(|line| {
        let (name, times) = line.split_once(' ')?;
        is_allowed(name.strip_prefix("cpu")?.parse().ok()?).then_some(())?;
        // User, nice, system, idle, waiting for disks, interrupts, and what other machines have taken. Then follow parts of user.
        let times: Vec<u64> = times.split_whitespace().take(8).filter_map(|time| time.parse().ok()).collect();
        let (total, idle) = (times.iter().sum::<u64>(), times.get(3)? + times.get(4)?);
        Some(CoreTimes { count: 1, busy: total - idle, total })
    });
    times.reduce(|sum, core| CoreTimes {
        count: sum.count + 1,
        busy: sum.busy + core.busy,
        total: sum.total + core.total,
    })
}

fn used_us(group: &Path) -> Option<u64> {
    number_of(&fs::read_to_string(group.join("cpu.stat")).ok()?, "usage_usec")
}

/// `None` if the group is not visible or has no quota.
fn quota(group: &Path) -> Option<Quota> {
    let max = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = max.trim().split_once(' ')?;
    let cores = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    let used_us = used_us(group)?;
    (cores > 0.0).then_some(Quota { cores, used_us })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::control_groups::write;
    use super::*;

    const STAT: &str = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 10 40 800 30 5 5 10 7 7\ncpu1 0 0 0 1000 0 0 0 0 0 0\n\
                        cpu10 50 0 0 50 0 0 0 0 0 0\nintr 1 2 3\n";

    #[test]
    fn only_the_time_of_the_cores_counts_on_which_the_process_may_run() {
        let times = |count, busy, total| Some(CoreTimes { count, busy, total });
        assert_eq!(core_times(STAT, "\t0\n"), times(1, 170, 1_000));
        assert_eq!(core_times(STAT, "0-1"), times(2, 170, 2_000));
        assert_eq!(core_times(STAT, "0,10-63"), times(2, 220, 1_100));
        assert_eq!(core_times(STAT, ""), times(3, 220, 2_100), "unknown");
        assert_eq!(core_times("", "0-1"), None);
    }

    #[test]
    fn the_quota_of_a_group_is_read_if_it_has_one() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("some/cpu.max", "150000 100000\n"),
            ("some/cpu.stat", "usage_usec 7000\nuser_usec 1\n"),
            ("none/cpu.max", "max 100000\n"),
            ("none/cpu.stat", "usage_usec 5000\n"),
        ];
        write(root.path(), &files);
        let quota_of = |group| quota(&root.path().join(group));
        assert_eq!(quota_of("some"), Some(Quota { cores: 1.5, used_us: 7_000 }));
        assert_eq!((quota_of("none"), quota_of("missing")), (None, None));
        assert_eq!(used_us(&root.path().join("none")), Some(5_000));
    }

    /// The share between two readings that are two seconds apart, on four cores and with a quota of half a core.
    fn share(busy: u64, own_us: Option<u64>, quota_us: u64) -> f64 {
        let at = Instant::now();
        let reading = |at, busy, total, own_us, used_us| Reading {
            at,
            cores: Some(CoreTimes { count: 4, busy, total }),
            own_us,
            groups: vec![Quota { cores: 0.5, used_us }],
        };
        let before = reading(at, 100, 1_000, own_us.map(|_| 7), 0);
        let after = reading(at + Duration::from_secs(2), 100 + busy, 1_800, own_us.map(|us| us + 7), quota_us);
        after.share_since(&before)
    }

    fn is_about(share: f64, expected: f64) {
        assert!((share - expected).abs() < 1e-9, "{share}, not {expected}");
    }

    #[tokio::test]
    async fn the_largest_share_of_cores_and_quotas_counts() {
        is_about(share(200, None, 0), 0.25);
        is_about(share(200, None, 500_000), 0.5);
        is_about(share(200, None, 9_000_000), 1.0);
        is_about(share(0, None, 0), 0.0);
    }

    #[tokio::test]
    async fn what_others_use_counts_only_if_it_is_less_than_half() {
        is_about(share(800, Some(4_000_000), 0), 1.0);
        is_about(share(800, Some(3_000_000), 0), 0.375);
        is_about(share(200, Some(0), 0), 0.0);
    }

    #[test]
    fn the_machine_reports_its_use() {
        let mut sampler = CpuSampler::new();
        assert!(cfg!(not(target_os = "linux")) || sampler.0.cores.is_some());
        assert!((0.0..=1.0).contains(&sampler.share()));
    }
}
