//! Client commands: everything that a person or a script asks of a running server.
//!
//! Data goes to standard output, talk to standard error. Exit codes tell scripts what happened:
//! see [`Exit`].

pub mod bench;
mod child;
mod connect;
pub mod demo;
mod filter;
mod pool;
pub mod say;
mod show;
mod submit;
mod system;
mod task;
pub mod token;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

pub use connect::Exit;
use connect::{Client, Problem};

/// Heading of the flags that say how a server is reached.
pub const CONNECTION: &str = "Connection";

/// What every client command knows.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// How answers are shown.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT", display_order = 900)]
    output: Format,
    /// Where the server is.
    #[arg(
        long,
        global = true,
        env = "LINESHAFT_SERVER",
        default_value = "http://127.0.0.1:7070",
        value_name = "URL",
        help_heading = CONNECTION
    )]
    server: String,
    #[command(flatten)]
    credentials: connect::Credentials,
}

impl Global {
    /// Whether data is shown as JSON.
    pub fn wants_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// The contract's JSON, one document a line.
    Json,
}

/// Commands that talk to a server.
#[expect(clippy::large_enum_variant, reason = "made once")]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit, follow and end tasks.
    #[command(subcommand)]
    Task(task::Command),
    /// See and change pools.
    #[command(subcommand)]
    Pool(pool::Command),
    /// See what can run.
    #[command(subcommand)]
    Handler(system::HandlerCommand),
    /// See how the server does, and end it.
    #[command(subcommand)]
    System(system::Command),
}

/// Carries out a command.
pub async fn run(command: Command, global: Global) -> ExitCode {
    let done = async {
        let client = Client::connect(&global.server, &global.credentials)?;
        let shown = show::Output::new(global.wants_json());
        match command {
            Command::Task(command) => task::run(command, client, shown).await,
            Command::Pool(command) => pool::run(command, client, shown).await,
            Command::Handler(command) => system::handlers(command, client, shown).await,
            Command::System(command) => system::run(command, client, shown).await,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = done => ended,
        () = say::lost() => Ok(Exit::Ok),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(problem) => {
            problem.tell();
            problem.exit().into()
        }
    }
}

/// A command's end: how it went, or what went wrong.
type Done = Result<Exit, Problem>;
