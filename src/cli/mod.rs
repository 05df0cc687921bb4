//! Client commands, and `demo` and `bench`, which start a temporary server. All of them use the public contract only.

mod artifact;
mod batch;
pub mod bench;
mod candidates;
mod client;
mod complete;
pub mod context;
mod contexts;
mod credentials;
pub mod demo;
mod error;
mod format;
mod handler;
mod hints;
mod limit;
mod map;
mod options;
pub mod output;
mod pool;
mod pool_decisions;
mod printer;
pub mod progress;
mod put_handler;
mod query;
mod reconnect;
mod schedule;
mod server_process;
mod signals;
mod system;
mod table;
mod task;
mod terminal;
mod time;
pub mod token;
mod top;
mod view;

use std::process::ExitCode;

use clap::Subcommand;

pub use credentials::CONNECTION;
use error::Exit;
pub use options::GlobalOptions;
use printer::Printer;
pub use signals::interrupted;

/// Commands that call a server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit, watch and cancel tasks
    #[command(subcommand)]
    Task(task::Command),
    /// List and download the files that tasks have left
    #[command(subcommand)]
    Artifact(artifact::Command),
    /// Create, follow, cancel and delete batches of tasks
    #[command(subcommand)]
    Batch(batch::Command),
    /// Create, change, trigger and preview schedules
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// List limits of tasks
    #[command(subcommand)]
    Limit(limit::Command),
    /// Run a handler on each line of the input and print the results
    ///
    /// The tasks are a batch. A task that does not complete prints an empty line, and its failure on stderr; the exit code is
    /// then 1. After Ctrl-C the tasks continue, and the printed command continues to print their results.
    Map(map::MapArgs),
    /// List and change pools
    #[command(subcommand)]
    Pool(pool::Command),
    /// List handlers, upload and delete WebAssembly modules
    #[command(subcommand)]
    Handler(handler::Command),
    /// Show live what the server does: tasks, workers, pools, failures
    ///
    /// On a terminal, ? lists the keys. Other programs get the activity of the pools as text or JSON, at each interval.
    Top(top::Options),
    /// Inspect and drain the server
    #[command(subcommand)]
    System(system::Command),
}

/// Reports an invalid command line as JSON.
pub fn report_usage(problem: &str) -> ExitCode {
    error::CliError::Usage(problem.to_owned()).report(true).into()
}

pub async fn run(command: Command, options: GlobalOptions) -> ExitCode {
    let json = options.json();
    let called = async {
        let (server, credentials) = options.connection()?;
        let client = client::connect(&server, &credentials)?;
        let printer = Printer::new(&options);
        match command {
            Command::Task(command) => task::run(command, client, printer).await,
            Command::Artifact(command) => artifact::run(command, client, printer).await,
            Command::Batch(command) => batch::run(command, client, printer).await,
            Command::Schedule(command) => schedule::run(command, client, printer).await,
            Command::Limit(command) => limit::run(command, client, printer).await,
            Command::Map(args) => map::run(args, client, printer).await,
            Command::Pool(command) => pool::run(command, client, printer).await,
            Command::Handler(command) => handler::run(command, client, printer).await,
            Command::Top(options) => top::run(options, &server, client, printer).await,
            Command::System(command) => system::run(command, client, printer).await,
        }
    };
    let result = tokio::select! {
        biased;
        result = called => result,
        () = output::stdout_failed() => Ok(Exit::Success),
    };
    result.unwrap_or_else(|error| error.report(json)).into()
}
