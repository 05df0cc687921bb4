//! `lineshaft serve`: configuration, telemetry and the runtime of the server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::app::{self, CheckedConfig, ConfigFile};
use crate::config::{Overrides, Sources};
use crate::runners::process;
use crate::telemetry;
use crate::telemetry::export::pipeline::Pipeline;
use crate::telemetry::export::settings::environment;

use super::arguments::ServeArgs;
use super::local::fail;

/// Time for blocking work that is left on the runtime when the server has stopped.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

pub fn run(args: ServeArgs) -> ExitCode {
    #[cfg(feature = "wasm")]
    crate::runners::wasm::before_hiding();
    // Before any thread is started: child processes inherit the attributes of the thread that spawns them.
    if let Err(error) = process::harden_process() {
        return fail(1, &error);
    }
    let overrides = Overrides {
        listen: args.listen,
        insecure: args.insecure.then_some(true),
        data_dir: args.data_dir,
        memory: args.memory.then_some(true),
        ..Overrides::default()
    };
    let (config, file) = match ConfigFile::open(Sources::new(args.config, std::env::vars_os(), overrides)) {
        Ok(opened) => opened,
        Err(error) => return fail(2, &error),
    };
    let instance = uuid::Uuid::new_v4().to_string();
    let mut pipeline = match telemetry::start(app::telemetry_options(&config.config), &environment(), &instance) {
        Ok(pipeline) => pipeline,
        Err(error) => return fail(2, &error),
    };
    let result = serve((config, file), args.ready_file, &instance, &mut pipeline);
    pipeline.shutdown();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &*error),
    }
}

fn serve(
    config: (CheckedConfig, ConfigFile),
    ready_file: Option<PathBuf>,
    instance: &str,
    pipeline: &mut Pipeline,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(app::serve(config, ready_file, instance, pipeline));
    if let Err(error) = served {
        // Attempts may still run; a runtime that shuts down would make them fail. They end with the process.
        std::mem::forget(runtime);
        return Err(error.into());
    }
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    Ok(())
}
