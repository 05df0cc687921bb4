//! `lineshaft bench`: measures a temporary server and compares it with the limits of this machine.
//!
//! Every scenario starts a new server as a child process and calls it through its port; load generator and server share
//! the CPU cores. Baselines are measured in the same run, by turns: a minimal server that responds after a group commit, and
//! appends to a file. The rate of a load is measured as a burst, and until the server has nothing left to do.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cli::output;
use crate::cli::server_process::Result;

mod baseline;
mod collector;
mod end_to_end;
mod growth;
mod http;
mod latency;
mod load;
mod memory;
mod minimal_server;
mod process;
mod remote;
mod report;
mod restart;
mod rounds;
mod scheduler;
mod server;
mod settings;
mod submit;
mod telemetry;
#[cfg(feature = "wasm")]
mod wasm;

use crate::cli::signals::interrupted;
use report::Report;
use settings::Settings;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Scenarios to run, separated by commas [default: all]
    #[arg(long = "scenario", value_enum, value_delimiter = ',', value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Time of each load whose sustained rate is measured, in seconds, 0.1 to 3600; the burst is its beginning, of up to three
    /// seconds
    #[arg(long, default_value_t = 30.0, value_parser = seconds, value_name = "SECONDS")]
    seconds: f64,
    /// How often each load is measured, by turns with its baseline, 1 to 100
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "N")]
    rounds: u16,
    /// Another version of the lineshaft binary; submit-* and end-to-end measure it by turns with this one
    #[arg(long, value_name = "BINARY")]
    compare: Option<PathBuf>,
    /// Connections of the load generator, 1 to 1000
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000), value_name = "N")]
    connections: u16,
    /// Concurrent calls per connection, 1 to 256
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    in_flight: u16,
    /// Also write the results to this file as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Smaller amounts, one round, and at most one second per load: fast, but imprecise
    #[arg(long)]
    quick: bool,
    /// Where to create the temporary stores; this disk is measured [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Durable SubmitTask calls
    SubmitUnary,
    /// Durable batches of 1000 tasks
    SubmitBatch,
    /// Durable submissions on streams
    SubmitStream,
    /// No-op tasks from submission to completion, seen by a watch
    EndToEnd,
    /// One task at a time, from submission to completion
    Latency,
    /// Queueing time of tasks that arrive at a fixed rate
    OpenLoop,
    /// Process tasks compared with direct spawning
    Process,
    /// Tasks that call a service compared with a client that calls it
    Http,
    /// WebAssembly guests: many at once beside bare wasmtime, and the time to stop one
    #[cfg(feature = "wasm")]
    Wasm,
    /// No-op tasks in a remote worker: one at a time, and many at once
    Remote,
    /// Events for 50 watches of the same tasks
    WatchFanOut,
    /// Memory per queued task and per idle worker
    Memory,
    /// Restart after a crash with a long queue
    Restart,
    /// Time to stop a running task
    Cancel,
    /// No-op tasks with and without telemetry
    Telemetry,
    /// What a task costs beside more and more queued tasks, workers, watches and namespaces
    Growth,
    /// No-op tasks with limits, with dependencies and of schedules compared with plain ones, few and many
    Scheduler,
}

const ALL: &[Scenario] = &[
    Scenario::SubmitUnary,
    Scenario::SubmitBatch,
    Scenario::SubmitStream,
    Scenario::EndToEnd,
    Scenario::Latency,
    Scenario::OpenLoop,
    Scenario::Process,
    Scenario::Http,
    #[cfg(feature = "wasm")]
    Scenario::Wasm,
    Scenario::Remote,
    Scenario::WatchFanOut,
    Scenario::Memory,
    Scenario::Restart,
    Scenario::Cancel,
    Scenario::Telemetry,
    Scenario::Growth,
    Scenario::Scheduler,
];

impl Scenario {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Threads of the load generator: those of the server.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs the scenarios, prints the results, and writes the JSON file. The exit code is 0 if every scenario could be
/// measured, whether or not it reached its target.
pub async fn run(options: Options) -> ExitCode {
    tokio::select! {
        // First, so that signals are received before a server is started.
        biased;
        code = interrupted() => code,
        code = measure_all(options) => code,
    }
}

async fn measure_all(options: Options) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            output::status(format_args!("error: failed to find this binary: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let settings = Settings {
        directory: options.directory.clone().unwrap_or_else(std::env::temp_dir),
        duration: Duration::from_secs_f64(if options.quick { options.seconds.min(1.0) } else { options.seconds }),
        rounds: if options.quick { 1 } else { options.rounds.into() },
        connections: options.connections.into(),
        in_flight: options.in_flight.into(),
        quick: options.quick,
        program,
        other: options.compare.clone(),
    };
    let scenarios = if options.scenarios.is_empty() { ALL.to_vec() } else { options.scenarios.clone() };
    let mut report = Report::new(&settings);
    output::status(report.machine());
    if let Err(error) = baseline::append(&settings, &mut report) {
        report.add_failure("bare-append", &*error);
    }
    for scenario in scenarios {
        output::status_start(format_args!("{} ... ", scenario.name()));
        let started = Instant::now();
        match measure(scenario, &settings, &mut report).await {
            Ok(()) => output::status(format_args!("{:.1}s", started.elapsed().as_secs_f64())),
            Err(error) => {
                output::status(format_args!("failed: {error}"));
                report.add_failure(&scenario.name(), &*error);
            }
        }
    }
    output::stdout_line(&report);
    if let Some(path) = &options.json
        && let Err(error) = std::fs::write(path, report.json())
    {
        output::status(format_args!("error: failed to write {}: {error}", path.display()));
        return ExitCode::FAILURE;
    }
    if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(scenario: Scenario, settings: &Settings, report: &mut Report) -> Result<()> {
    let short = &settings.short();
    match scenario {
        Scenario::SubmitUnary => submit::unary(settings, report).await,
        Scenario::SubmitBatch => submit::batch(settings, report).await,
        Scenario::SubmitStream => submit::stream(settings, report).await,
        Scenario::EndToEnd => end_to_end::run(settings, report).await,
        Scenario::WatchFanOut => end_to_end::fan_out(settings, report).await,
        Scenario::Latency => latency::one_at_a_time(short, report).await,
        Scenario::OpenLoop => latency::open_loop(short, report).await,
        Scenario::Cancel => latency::cancel(settings, report).await,
        Scenario::Process => process::run(short, report).await,
        Scenario::Http => http::run(short, report).await,
        #[cfg(feature = "wasm")]
        Scenario::Wasm => wasm::run(short, report).await,
        Scenario::Remote => remote::run(short, report).await,
        Scenario::Memory => memory::run(settings, report).await,
        Scenario::Restart => restart::run(settings, report).await,
        Scenario::Telemetry => telemetry::run(settings, report).await,
        Scenario::Growth => growth::run(short, report).await,
        Scenario::Scheduler => scheduler::run(settings, report).await,
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0.1 to 3600".to_owned()),
    }
}
