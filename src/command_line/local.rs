//! `lineshaft config` and `lineshaft store`: commands that work on local files.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cli::progress::Progress;
use crate::cli::{interrupted, output};
use crate::config::{self, Config, Overrides};
use crate::store::{self, CheckReport, Report, StoreError};

use super::arguments::{ConfigCommand, StoreCommand};

const SHOWN_INTERVAL: Duration = Duration::from_millis(200);

pub fn run_config_command(command: &ConfigCommand) -> ExitCode {
    let text = match command {
        ConfigCommand::Schema => Ok(Config::schema()),
        ConfigCommand::Dump { config, show_secrets } => {
            let dump = |config: Config| if *show_secrets { config.dump() } else { config.dump_masked() };
            config::load(config.as_deref(), std::env::vars_os(), Overrides::default()).map(dump)
        }
    };
    match text {
        Ok(text) => {
            output::stdout_bytes(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => fail(2, &error),
    }
}

pub fn run_store_command(command: StoreCommand, json: bool) -> ExitCode {
    let result = match command {
        StoreCommand::Check { directory } => blocking(move |report| store::check(&directory, report)),
        StoreCommand::Rebuild { directory } => blocking(move |report| {
            let warnings = store::rebuild(&directory, report)?;
            Ok((warnings, store::check(&directory, report)?))
        })
        .map(|rebuilt| {
            rebuilt.map(|(warnings, checked)| {
                for warning in warnings {
                    output::status(format_args!("warning: {warning}"));
                }
                checked
            })
        }),
        StoreCommand::Backup { to, data_dir, config } => {
            let overrides = Overrides { data_dir, ..Overrides::default() };
            match config::load(config.as_deref(), std::env::vars_os(), overrides) {
                Ok(config) => backup(config.store.directory, to),
                Err(error) => return fail(2, &error),
            }
        }
    };
    match result {
        Ok(Ok(contents)) if json => output::stdout_line(serde_json::json!(contents)),
        Ok(Ok(contents)) => output::stdout_bytes(contents.to_string().as_bytes()),
        Ok(Err(error)) => return fail(1, &error),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

/// Copies a store, without the artifacts of its tasks. A signal ends the copy, whose files are removed.
///
/// # Errors
/// As [`blocking`].
fn backup(data: PathBuf, to: PathBuf) -> Result<Result<CheckReport, StoreError>, ExitCode> {
    let target = to.clone();
    let artifacts = data.join("artifacts");
    let copied = blocking(move |report| store::backup(&data, &target, report));
    if copied.is_err() {
        store::discard_backup(&to);
    }
    let is_used = || std::fs::read_dir(&artifacts).is_ok_and(|mut entries| entries.next().is_some());
    if matches!(copied, Ok(Ok(_))) && is_used() {
        let (from, to) = (artifacts.display(), to.display());
        output::status(format_args!("warning: the backup does not contain {from}: copy it into {to}"));
    }
    copied
}

/// Shows the progress of an operation on a store until it ends, or a signal ends the process.
///
/// # Errors
/// The exit code, if a signal or the operating system has ended it. It still runs then.
fn blocking<T: Send + 'static>(
    operation: impl FnOnce(&mut Report<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<Result<T, StoreError>, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| fail(1, &error))?;
    let ended = runtime.block_on(async {
        let progress = Progress::new(None, "");
        let run = move || operation(&mut reporter(progress));
        tokio::select! {
            biased;
            code = interrupted() => Err(code),
            ended = tokio::task::spawn_blocking(run) => ended.map_err(|error| fail(1, &error)),
        }
    });
    runtime.shutdown_background();
    ended
}

/// Shows what an operation reports, which can be often.
fn reporter(progress: Progress) -> impl FnMut(&'static str, u64, Option<u64>) {
    let mut next = Instant::now();
    move |what, done, total| {
        let now = Instant::now();
        if now >= next {
            next = now + SHOWN_INTERVAL;
            progress.describe(what.to_owned());
            progress.set(done, total);
        }
    }
}

/// Writes the error to stderr and returns `code`.
pub fn fail(code: u8, error: &(dyn Error + 'static)) -> ExitCode {
    output::status(format_args!("error: {error}"));
    ExitCode::from(code)
}
