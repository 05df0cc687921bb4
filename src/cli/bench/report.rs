//! The figures: a table for people, JSON for comparison, and the machine that they belong to.

use std::error::Error;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::Plan;
use crate::model::{Clock, SystemClock};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    scenario: String,
    what: String,
    value: f64,
    unit: &'static str,
    /// Whether a smaller value is better.
    lower_is_better: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ceiling: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ceiling_is: Option<&'static str>,
    /// value / ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Row {
    /// A figure without a target, of which more is better.
    pub fn new(scenario: &str, what: &str, value: f64, unit: &'static str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            what: what.to_owned(),
            value,
            unit,
            lower_is_better: false,
            target: None,
            reached: None,
            ceiling: None,
            ceiling_is: None,
            ratio: None,
        }
    }

    /// Less is better.
    pub fn lower(mut self) -> Self {
        self.lower_is_better = true;
        self
    }

    /// The target is a floor.
    pub fn at_least(mut self, target: f64) -> Self {
        self.target = Some(target);
        self.reached = Some(self.value >= target);
        self
    }

    /// The target is a roof.
    pub fn at_most(mut self, target: f64) -> Self {
        self.target = Some(target);
        self.reached = Some(self.value <= target);
        self.lower()
    }

    /// What the machine gave in the same run.
    pub fn ceiling(mut self, ceiling: f64, is: &'static str) -> Self {
        self.ceiling = Some(ceiling);
        self.ceiling_is = Some(is);
        self.ratio = (ceiling > 0.0).then(|| self.value / ceiling);
        self
    }

    fn cells(&self) -> [String; 7] {
        let sign = if self.lower_is_better { "≤" } else { "≥" };
        let target = self.target.map_or_else(String::new, |target| format!("{sign} {}", amount(target)));
        let reached = match self.reached {
            None => "",
            Some(true) => "reached",
            Some(false) => "MISSED",
        };
        let ceiling = match (self.ceiling, self.ratio) {
            (Some(ceiling), Some(ratio)) => format!("{} (× {ratio:.2})", amount(ceiling)),
            _ => String::new(),
        };
        [
            self.scenario.clone(),
            self.what.clone(),
            amount(self.value),
            self.unit.to_owned(),
            target,
            reached.to_owned(),
            ceiling,
        ]
    }
}

/// A number with as many digits as one reads.
fn amount(value: f64) -> String {
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

/// The machine and how busy it was.
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
struct Trouble {
    scenario: String,
    error: String,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    version: &'static str,
    optimized: bool,
    measured_at: String,
    seconds: f64,
    connections: usize,
    in_flight: usize,
    quick: bool,
    machine: Machine,
    rows: Vec<Row>,
    failed: Vec<Trouble>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            optimized: !cfg!(debug_assertions),
            measured_at: SystemClock.now().to_string(),
            seconds: plan.span.as_secs_f64(),
            connections: plan.connections,
            in_flight: plan.in_flight,
            quick: plan.quick,
            machine: Machine::here(&plan.directory),
            rows: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Adds a figure.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Notes a scenario that could not be measured.
    pub fn failed(&mut self, scenario: &str, error: &dyn Error) {
        self.failed.push(Trouble { scenario: scenario.to_owned(), error: error.to_string() });
    }

    /// Whether every scenario could be measured.
    pub fn complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// One line about the machine.
    pub fn machine(&self) -> String {
        let Machine { cores, processor, memory_mib, kernel, file_system, load_average } = &self.machine;
        let build = if self.optimized { "optimized" } else { "NOT optimized: use --release" };
        format!(
            "lineshaft {} ({build}) on {cores} cores ({processor}), {memory_mib} MiB, {kernel}, \
             stores on {file_system}, load {load_average}",
            self.version
        )
    }

    /// Everything as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["scenario", "what", "value", "unit", "target", "", "ceiling"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        for row in &rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = width(column);
                if column == 2 { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for Trouble { scenario, error } in &self.failed {
            writeln!(f, "{scenario}: failed: {error}")?;
        }
        f.write_str("Client and server share the cores. Ceilings were measured in this run.")
    }
}

impl Machine {
    fn here(directory: &Path) -> Self {
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

/// Kind of the file system that a directory is on: that of the longest mount point above it.
fn file_system(directory: &Path, mounts: &str) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let mounts = mounts.lines().filter_map(|line| {
        let mut parts = line.split(' ').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let above = mounts.filter(|(point, _)| directory.starts_with(point));
    let kind = above.max_by_key(|(point, _)| point.len()).map_or("an unknown file system", |(_, kind)| kind);
    if matches!(kind, "tmpfs" | "ramfs") { format!("{kind} (nothing is durable)") } else { kind.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_grouped_or_shortened_to_what_one_reads() {
        assert_eq!(amount(1_234_567.8), "1,234,568");
        assert_eq!(amount(999.96), "1000.0");
        assert_eq!(amount(42.25), "42.2");
        assert_eq!(amount(0.2194), "0.219");
    }

    #[test]
    fn the_file_system_is_that_of_the_deepest_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /dev tmpfs rw 0 0\n";
        assert_eq!(file_system(Path::new("/dev"), mounts), "tmpfs (nothing is durable)");
        assert_eq!(file_system(Path::new("/"), mounts), "ext4");
    }

    #[test]
    fn a_target_is_a_floor_or_a_roof() {
        assert_eq!(Row::new("a", "b", 5.0, "/s").at_least(5.0).reached, Some(true));
        assert_eq!(Row::new("a", "b", 5.0, "ms").at_most(4.9).reached, Some(false));
        assert_eq!(Row::new("a", "b", 5.0, "/s").ceiling(10.0, "bare").ratio, Some(0.5));
    }
}
