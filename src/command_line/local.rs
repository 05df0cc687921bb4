//! `lineshaft config` and `lineshaft store`: commands that work on local files.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::{interrupted, output};
use crate::config::{self, Config, Overrides};
use crate::store::{self, CheckReport, StoreError};

use super::arguments::{ConfigCommand, StoreCommand};

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

pub fn run_store_command(command: &StoreCommand, json: bool) -> ExitCode {
    let result = match command {
        StoreCommand::Check { directory } => store::check(directory),
        StoreCommand::Rebuild { directory } => store::rebuild(directory).and_then(|warnings| {
            for warning in warnings {
                output::status(format_args!("warning: {warning}"));
            }
            store::check(directory)
        }),
        StoreCommand::Backup { to, data_dir, config } => {
            let overrides = Overrides { data_dir: data_dir.clone(), ..Overrides::default() };
            match config::load(config.as_deref(), std::env::vars_os(), overrides) {
                Ok(config) => match backup(&config.store.directory, to) {
                    Ok(result) => result,
                    Err(code) => return code,
                },
                Err(error) => return fail(2, &error),
            }
        }
    };
    match result {
        Ok(contents) if json => output::stdout_line(serde_json::json!(contents)),
        Ok(contents) => output::stdout_bytes(contents.to_string().as_bytes()),
        Err(error) => return fail(1, &error),
    }
    ExitCode::SUCCESS
}

/// Copies a store. A signal ends the copy, whose files are removed.
///
/// # Errors
/// The exit code, if a signal or the operating system has ended it.
fn backup(data: &Path, to: &Path) -> Result<Result<CheckReport, StoreError>, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| fail(1, &error))?;
    let (source, target) = (data.to_owned(), to.to_owned());
    let copied = runtime.block_on(async {
        tokio::select! {
            biased;
            code = interrupted() => Err(code),
            copied = tokio::task::spawn_blocking(move || store::backup(&source, &target)) => {
                copied.map_err(|error| fail(1, &error))
            }
        }
    });
    if copied.is_err() {
        store::discard_backup(to);
    }
    // The copy still runs after a signal.
    runtime.shutdown_background();
    copied
}

/// Writes the error to stderr and returns `code`.
pub fn fail(code: u8, error: &(dyn Error + 'static)) -> ExitCode {
    output::status(format_args!("error: {error}"));
    ExitCode::from(code)
}
