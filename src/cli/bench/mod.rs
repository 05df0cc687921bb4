//! `lineshaft bench`: how fast this server is on this machine, beside what the machine allows.
//!
//! Every scenario has a fresh server as a child process and speaks to it through its port; load generator
//! and server share the cores. Ceilings are measured in the same run: an RPC that is answered at once, the
//! same after a bare group commit, and a bare durable append. The bare services live in this process, on a
//! runtime of their own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cli::output;
use crate::cli::server_process::Result;

mod baseline;
mod collector;
mod end_to_end;
mod latency;
mod load;
mod memory;
mod minimal_server;
mod process;
mod report;
mod restart;
mod server;
mod submit;
mod telemetry;

use report::Report;

/// Measures this server on this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Which scenarios, separated by commas. Default: all.
    #[arg(long = "scenario", value_enum, value_delimiter = ',')]
    pub scenarios: Vec<Scenario>,
    /// How long each rate is measured, in seconds.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// Connections of the load generator.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub connections: u16,
    /// Calls in flight on each connection.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub in_flight: u16,
    /// Where to write the figures as JSON.
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Smaller amounts and one second each: a look, not a measurement.
    #[arg(long)]
    pub quick: bool,
    /// Where the stores are made; the disk that is measured. Default: the system's temporary directory.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Durable SubmitTask calls, one task each.
    SubmitUnary,
    /// Durable batches of 1,000 tasks.
    SubmitBatch,
    /// Durable submissions on a stream.
    SubmitStream,
    /// No-op tasks from submission to completion seen on a watch.
    EndToEnd,
    /// One task at a time, from submission to completion seen.
    Latency,
    /// Wait of tasks that come at a fixed rate.
    OpenLoop,
    /// Processes against bare spawning.
    Process,
    /// Many watchers of the same tasks.
    WatchFanOut,
    /// Memory of queued tasks and of idle workers.
    Memory,
    /// Crash and restart with a long queue.
    Restart,
    /// Stopping a task that computes.
    Cancel,
    /// No-op tasks with and without telemetry, by turns.
    Telemetry,
}

const ALL: [Scenario; 12] = [
    Scenario::SubmitUnary,
    Scenario::SubmitBatch,
    Scenario::SubmitStream,
    Scenario::EndToEnd,
    Scenario::Latency,
    Scenario::OpenLoop,
    Scenario::Process,
    Scenario::WatchFanOut,
    Scenario::Memory,
    Scenario::Restart,
    Scenario::Cancel,
    Scenario::Telemetry,
];

impl Scenario {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What all scenarios are given.
#[derive(Clone, Debug)]
struct Plan {
    directory: PathBuf,
    span: Duration,
    connections: usize,
    in_flight: usize,
    quick: bool,
}

/// Measures, prints the table, writes the JSON. Succeeds when every scenario could be measured, whether or
/// not its figure reached the target.
pub async fn run(options: Options) -> ExitCode {
    tokio::select! {
        code = measure_all(options) => code,
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
    }
}

async fn measure_all(options: Options) -> ExitCode {
    let plan = Plan {
        directory: options.directory.clone().unwrap_or_else(std::env::temp_dir),
        span: Duration::from_secs_f64(if options.quick { options.seconds.min(1.0) } else { options.seconds }),
        connections: options.connections.into(),
        in_flight: options.in_flight.into(),
        quick: options.quick,
    };
    let scenarios = if options.scenarios.is_empty() { ALL.to_vec() } else { options.scenarios.clone() };
    let mut report = Report::new(&plan);
    output::status(report.machine());
    if let Err(error) = baseline::bare_append(&plan, &mut report) {
        report.failed("bare-append", &*error);
    }
    for scenario in scenarios {
        output::status_start(format_args!("{} ... ", scenario.name()));
        let began = Instant::now();
        match measure(scenario, &plan, &mut report).await {
            Ok(()) => output::status(format_args!("{:.1} s", began.elapsed().as_secs_f64())),
            Err(error) => {
                output::status(format_args!("failed: {error}"));
                report.failed(&scenario.name(), &*error);
            }
        }
    }
    output::stdout_line(&report);
    if let Some(path) = &options.json
        && let Err(error) = std::fs::write(path, report.json())
    {
        output::status(format_args!("failed to write {}: {error}", path.display()));
        return ExitCode::FAILURE;
    }
    if report.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(scenario: Scenario, plan: &Plan, report: &mut Report) -> Result<()> {
    match scenario {
        Scenario::SubmitUnary => submit::unary(plan, report).await,
        Scenario::SubmitBatch => submit::batch(plan, report).await,
        Scenario::SubmitStream => submit::stream(plan, report).await,
        Scenario::EndToEnd => end_to_end::run(plan, report).await,
        Scenario::WatchFanOut => end_to_end::fan_out(plan, report).await,
        Scenario::Latency => latency::one_at_a_time(plan, report).await,
        Scenario::OpenLoop => latency::open_loop(plan, report).await,
        Scenario::Cancel => latency::cancel(plan, report).await,
        Scenario::Process => process::run(plan, report).await,
        Scenario::Memory => memory::run(plan, report).await,
        Scenario::Restart => restart::run(plan, report).await,
        Scenario::Telemetry => telemetry::run(plan, report).await,
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0.1 to 3600".to_owned()),
    }
}
