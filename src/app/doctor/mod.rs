//! `lineshaft doctor`: looks at what a server here would lean on, and says what to do about what is not well.
//!
//! It starts nothing and changes nothing: the one file that it writes, to learn how fast the disk is, has no name.

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
use crate::telemetry::export::Settings;

use report::{Finding, Report};

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration file (TOML).
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Directory of the store.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Looks at everything, and fails when a server could not start or would not keep its promises. As JSON each
/// finding is a document of its own. `say` is given each line.
pub async fn run(options: Options, json: bool, say: fn(&str)) -> ExitCode {
    let mut report = Report::new(json, say);
    let overrides = Overrides { data_dir: options.data_dir, ..Overrides::default() };
    match config::load(options.config.as_deref(), std::env::vars(), overrides) {
        Ok(config) => {
            let telemetry = &config.telemetry;
            let variables = std::env::vars().collect();
            let settings = Settings::read(&variables, &telemetry.endpoint, telemetry.protocol.name());
            let scrapes = settings.as_ref().ok().and_then(|settings| settings.prometheus.as_ref());
            report.add(configuration(&config));
            report.extend(handlers::examine(&config.handlers));
            let disk = disk::examine(&config.store);
            report.extend(network::examine(&config, scrapes, disk.in_use));
            report.extend(disk.findings);
            report.extend(limits::examine(&config));
            report.extend(clock::examine(&SystemClock, disk.newest).await);
            report.extend(otlp::examine(&settings).await);
        }
        Err(error) => {
            let advice = match &error {
                ConfigError::Unreadable { .. } => "name a file that this user may read: --config, or LINESHAFT_CONFIG",
                ConfigError::Invalid(_) => "correct each of them; `lineshaft config schema` knows every setting",
            };
            report.add(Finding::bad("configuration", error.to_string()).advise(advice));
        }
    }
    report.finish()
}

fn configuration(config: &Config) -> Finding {
    let (pools, handlers) = (config.pools.len(), config.handlers.len());
    let text = format!("pools: {pools}, handlers: {handlers}, listens on {}", config.server.listen);
    if config.server.insecure {
        let advice = "leave server.insecure off, or make sure that nobody else reaches this address";
        return Finding::doubtful("configuration", format!("{text}; serves anyone who can reach it")).advise(advice);
    }
    Finding::well("configuration", text)
}
