//! Arguments to configuration to server; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use lineshaft::app;
use lineshaft::config::{self, Config, Overrides};
use lineshaft::runners::process;
use lineshaft::telemetry::log;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A gRPC task-execution service.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Runs the server.
    Serve(Serve),
    #[command(name = process::supervisor::SUBCOMMAND, hide = true)]
    Supervise { args: Vec<std::ffi::OsString> },
}

/// Flags of the server; they win over the environment and the file.
#[derive(clap::Args)]
struct Serve {
    /// Configuration file (TOML).
    #[arg(long, value_name = "PATH")]
    config: Option<std::path::PathBuf>,
    /// Address to listen on.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<std::net::SocketAddr>,
    /// Directory of the store.
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    data_dir: Option<std::path::PathBuf>,
    /// Keep everything in memory; nothing survives a restart.
    #[arg(long)]
    memory: bool,
    /// Listen beyond loopback although there is no authentication.
    #[arg(long)]
    insecure: bool,
    /// Write the address to this file once connections are accepted.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Serve(flags) => serve(flags),
        Command::Supervise { args } => process::supervise_main(args),
    }
}

fn serve(flags: Serve) -> ExitCode {
    let overrides = Overrides {
        listen: flags.listen,
        insecure: flags.insecure.then_some(true),
        data_dir: flags.data_dir,
        memory: flags.memory.then_some(true),
        ..Overrides::default()
    };
    let config = match config::load(flags.config.as_deref(), std::env::vars(), overrides) {
        Ok(config) => config,
        Err(error) => return fail(2, &error),
    };
    if let Err(error) = log::init(config.log.format, &config.log.filter) {
        return fail(2, &error);
    }
    match run(config, flags.ready_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &*error),
    }
}

fn run(config: Config, ready_file: Option<std::path::PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    // Before any thread is started: children inherit what their thread has.
    process::harden_process()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(app::serve(config, ready_file))?;
    // What is left waits for nothing that matters.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(())
}

fn fail(code: u8, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(code)
}
