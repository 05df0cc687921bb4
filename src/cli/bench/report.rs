//! The results: a table for people, JSON for comparisons, and a description of the machine.

use std::error::Error;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::settings::Settings;
use crate::model::{Clock, SystemClock};

/// One measured value.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    scenario: String,
    what: String,
    /// With several rounds, their median.
    value: f64,
    /// The least and the largest of several rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<(f64, f64)>,
    unit: &'static str,
    lower_is_better: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_name: Option<&'static str>,
    /// value / baseline; with several rounds, the median of their ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_spread: Option<(f64, f64)>,
    /// Of the ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_target: Option<f64>,
    /// By round.
    #[serde(skip)]
    values: Vec<f64>,
}

impl Row {
    /// A value without a target, for which higher is better.
    pub fn new(scenario: &str, what: &str, value: f64, unit: &'static str) -> Self {
        Self::of_rounds(scenario, what, vec![value], unit)
    }

    /// The value of several rounds: their median.
    pub fn of_rounds(scenario: &str, what: &str, values: Vec<f64>, unit: &'static str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            what: what.to_owned(),
            value: median(&values),
            spread: spread(&values),
            values,
            unit,
            lower_is_better: false,
            target: None,
            reached: None,
            baseline: None,
            baseline_name: None,
            ratio: None,
            ratio_spread: None,
            ratio_target: None,
        }
    }

    pub fn lower_is_better(mut self) -> Self {
        self.lower_is_better = true;
        self
    }

    /// Sets a minimum as the target.
    pub fn at_least(mut self, target: f64) -> Self {
        self.target = Some(target);
        self.reached = Some(self.value >= target);
        self
    }

    /// Sets a maximum as the target.
    pub fn at_most(mut self, target: f64) -> Self {
        self.target = Some(target);
        self.reached = Some(self.value <= target);
        self.lower_is_better()
    }

    /// Adds the baseline that was measured in the same run.
    pub fn baseline(self, baseline: f64, name: &'static str) -> Self {
        self.baselines(vec![baseline], name)
    }

    /// Adds the baseline of each round.
    pub fn baselines(mut self, baselines: Vec<f64>, name: &'static str) -> Self {
        let pairs = self.values.iter().zip(&baselines).filter(|(_, baseline)| **baseline > 0.0);
        let ratios: Vec<f64> = pairs.map(|(value, baseline)| value / baseline).collect();
        self.baseline = Some(median(&baselines));
        self.baseline_name = Some(name);
        self.ratio = (!ratios.is_empty()).then(|| median(&ratios));
        self.ratio_spread = spread(&ratios);
        self
    }

    /// Sets a minimum of the ratio to the baseline as the target.
    pub fn ratio_at_least(mut self, target: f64) -> Self {
        self.ratio_target = Some(target);
        self.reached = self.ratio.map(|ratio| ratio >= target);
        self
    }

    /// Sets a maximum of the ratio to the baseline as the target.
    pub fn ratio_at_most(mut self, target: f64) -> Self {
        self.ratio_target = Some(target);
        self.reached = self.ratio.map(|ratio| ratio <= target);
        self.lower_is_better()
    }

    fn cells(&self) -> [String; 8] {
        let sign = if self.lower_is_better { "≤" } else { "≥" };
        let target = match (self.target, self.ratio_target) {
            (Some(target), _) => format!("{sign} {}", format_value(target)),
            (None, Some(target)) => format!("{sign} × {target}"),
            (None, None) => String::new(),
        };
        let spread = self
            .spread
            .map_or_else(String::new, |(least, most)| format!("{} – {}", format_value(least), format_value(most)));
        let reached = match self.reached {
            None => "",
            Some(true) => "reached",
            Some(false) => "MISSED",
        };
        let baseline = match (self.baseline, self.ratio, self.ratio_spread) {
            (Some(baseline), Some(ratio), None) => format!("{} (× {ratio:.2})", format_value(baseline)),
            (Some(baseline), Some(ratio), Some((least, most))) => {
                format!("{} (× {ratio:.2}; {least:.2} – {most:.2})", format_value(baseline))
            }
            _ => String::new(),
        };
        [
            self.scenario.clone(),
            self.what.clone(),
            format_value(self.value),
            self.unit.to_owned(),
            spread,
            target,
            reached.to_owned(),
            baseline,
        ]
    }
}

/// The quantile 0 to 1 of sorted values, interpolated.
fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(clippy::cast_precision_loss, reason = "there are few values")]
    let position = quantile * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position between 0 and `last`")]
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values.iter().copied()), 0.5)
}

/// The least and the largest value, if there are several.
fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values.iter().copied());
    (sorted.len() > 1).then(|| (sorted[0], sorted[sorted.len() - 1]))
}

/// A number with three or four significant digits, or grouped digits from 1,000 on.
fn format_value(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => {
            let digits = format!("{value:.0}");
            let from_end = |index: usize| digits.len() - index;
            let mut text = String::new();
            for (index, digit) in digits.char_indices() {
                if index > 0 && from_end(index).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The machine and its load.
#[derive(Clone, Debug, Serialize)]
struct Machine {
    cores: usize,
    processor: String,
    memory_mib: u64,
    kernel: String,
    file_system: String,
    load_average: String,
}

/// A scenario that could not be measured.
#[derive(Clone, Debug, Serialize)]
struct Failure {
    scenario: String,
    error: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    version: &'static str,
    optimized: bool,
    measured_at: String,
    seconds: f64,
    rounds: usize,
    connections: usize,
    in_flight: usize,
    quick: bool,
    machine: Machine,
    rows: Vec<Row>,
    failed: Vec<Failure>,
}

impl Report {
    pub fn new(settings: &Settings) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            optimized: !cfg!(debug_assertions),
            measured_at: SystemClock.now().to_string(),
            seconds: settings.duration.as_secs_f64(),
            rounds: settings.rounds,
            connections: settings.connections,
            in_flight: settings.in_flight,
            quick: settings.quick,
            machine: Machine::detect(&settings.directory),
            rows: Vec::new(),
            failed: Vec::new(),
        }
    }

    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn add_failure(&mut self, scenario: &str, error: &dyn Error) {
        self.failed.push(Failure { scenario: scenario.to_owned(), error: error.to_string() });
    }

    /// Whether every scenario could be measured.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// One line about the machine.
    pub fn machine(&self) -> String {
        let Machine { cores, processor, memory_mib, kernel, file_system, load_average } = &self.machine;
        let build = if self.optimized { "release build" } else { "DEBUG BUILD: build with --release" };
        format!(
            "lineshaft {} ({build}); {cores} cores ({processor}), {memory_mib} MiB, {kernel}; \
             stores on {file_system}; load average {load_average}",
            self.version
        )
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["SCENARIO", "MEASURED", "VALUE", "UNIT", "ROUNDS", "TARGET", "", "BASELINE"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        for row in &rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = width(column);
                if column == 2 { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for Failure { scenario, error } in &self.failed {
            writeln!(f, "{scenario}: failed: {error}")?;
        }
        f.write_str(
            "Client and server share the CPU cores. Baselines were measured in this run, by turns. Of several rounds, the table has \
             the median and the extremes. A sustained rate ends when the server has nothing left to do.",
        )
    }
}

impl Machine {
    fn detect(directory: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            memory_mib: kilobytes / 1024,
            kernel: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            file_system: file_system(directory, &read("/proc/mounts")),
            load_average: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// Type of the file system of a directory: that of the longest mount point above it.
fn file_system(directory: &Path, mounts: &str) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let mounts = mounts.lines().filter_map(|line| {
        let mut parts = line.split(' ').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let above = mounts.filter(|(point, _)| directory.starts_with(point));
    let kind = above.max_by_key(|(point, _)| point.len()).map_or("an unknown file system", |(_, kind)| kind);
    if matches!(kind, "tmpfs" | "ramfs") { format!("{kind} (not durable)") } else { kind.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_grouped_or_rounded() {
        assert_eq!(format_value(1_234_567.8), "1,234,568");
        assert_eq!(format_value(999.96), "1000.0");
        assert_eq!(format_value(42.25), "42.2");
        assert_eq!(format_value(0.2194), "0.219");
    }

    #[test]
    fn the_file_system_is_that_of_the_deepest_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /dev tmpfs rw 0 0\n";
        assert_eq!(file_system(Path::new("/dev"), mounts), "tmpfs (not durable)");
        assert_eq!(file_system(Path::new("/"), mounts), "ext4");
    }

    #[test]
    fn a_target_is_a_minimum_or_a_maximum() {
        assert_eq!(Row::new("a", "b", 5.0, "/s").at_least(5.0).reached, Some(true));
        assert_eq!(Row::new("a", "b", 5.0, "ms").at_most(4.9).reached, Some(false));
        assert_eq!(Row::new("a", "b", 5.0, "/s").baseline(10.0, "bare").ratio, Some(0.5));
    }

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        let row = Row::of_rounds("a", "b", vec![10.0, 40.0, 12.0], "/s").baselines(vec![10.0, 20.0, 24.0], "bare");
        assert_eq!((row.value, row.spread), (12.0, Some((10.0, 40.0))));
        assert_eq!((row.ratio, row.ratio_spread), (Some(1.0), Some((0.5, 2.0))));
        assert_eq!(row.clone().ratio_at_least(1.0).reached, Some(true));
        assert_eq!(row.ratio_at_most(0.9).reached, Some(false));
        assert_eq!(Row::new("a", "b", 5.0, "/s").spread, None);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let values = sorted([4.0, 1.0, 3.0, 2.0].into_iter());
        assert!((quantile(&values, 0.5) - 2.5).abs() < 1e-9);
        assert!((quantile(&values, 0.25) - 1.75).abs() < 1e-9);
        assert!((quantile(&values, 1.0) - 4.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
