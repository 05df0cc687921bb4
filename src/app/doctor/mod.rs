//! `lineshaft doctor`: checks the environment a server would run in and suggests fixes.
//!
//! It starts nothing and changes nothing. To measure the disk it writes one temporary file without a name
//! (`O_TMPFILE`).

mod clock;
mod disk;
mod handlers;
mod limits;
mod network;
mod otlp;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{self, Config, ConfigError, Overrides};
use crate::model::SystemClock;
use crate::telemetry::export::settings::{Settings, environment};

use report::{Finding, Report};

use super::{connections, schedules};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration file (TOML) [default: $LINESHAFT_CONFIG, or none]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Data directory [default: store.directory of the configuration]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs all checks. Fails if a server could not start or could not keep its guarantees. `print` receives each
/// line of output; with `json`, each line is one finding.
pub async fn run(options: Options, json: bool, print: fn(&str)) -> ExitCode {
    let mut report = Report::new(json, print);
    let overrides = Overrides { data_dir: options.data_dir, ..Overrides::default() };
    match config::load(options.config.as_deref(), std::env::vars_os(), overrides) {
        Ok(config) => check_all(&config, &mut report).await,
        Err(error) => {
            let advice = match &error {
                ConfigError::Unreadable { .. } => "name a readable file with --config or LINESHAFT_CONFIG",
                ConfigError::Invalid(_) => "correct each setting; `lineshaft config schema` lists all of them",
            };
            report.add(Finding::failure("configuration", error.to_string()).with_advice(advice));
        }
    }
    report.finish()
}

async fn check_all(config: &Config, report: &mut Report) {
    let settings = Settings::read(&environment(), config.telemetry.endpoint.reveal(), config.telemetry.protocol.name());
    let prometheus = settings.prometheus.as_ref();
    report.add(configuration(config));
    if let Err(error) = schedules::configured(config) {
        report.add(Finding::failure("schedules", error.to_string()).with_advice("correct the schedule"));
    }
    if let Err(error) = connections::check(config) {
        let advice = "the server would not start; correct the path, or make the file readable for its user";
        report.add(Finding::failure("connections", error.to_string()).with_advice(advice));
    }
    report.extend(handlers::check(config));
    let disk = disk::check(&config.store);
    report.extend(network::check(config, prometheus, disk.in_use).await);
    report.extend(disk.findings);
    report.extend(limits::check(config));
    report.extend(clock::check(&SystemClock, disk.newest).await);
    report.extend(otlp::check(&settings).await);
}

fn configuration(config: &Config) -> Finding {
    let (pools, handlers) = (config.pools.len(), config.handlers.len());
    let text = format!("pools: {pools}, handlers: {handlers}, listens on {}", config.server.listen);
    let is_public = !config.server.listen.ip().to_canonical().is_loopback();
    if config.server.insecure && is_public && !config.auth.on() {
        let advice = "unset server.insecure, or make sure that only trusted clients can reach this address";
        return Finding::warning("configuration", format!("{text}; serves anyone who can reach it"))
            .with_advice(advice);
    }
    Finding::ok("configuration", text)
}
