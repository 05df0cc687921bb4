//! The `lineshaft` command: parses the arguments and runs the command that they name.

mod arguments;
mod local;
mod serve;

use std::process::ExitCode;

use clap::FromArgMatches;

use crate::app;
use crate::cli::{self, output};
use crate::runners::process;
use arguments::{Arguments, Command, command_line};
use local::fail;

/// Worker threads of the runtime for client commands.
const CLIENT_THREADS: usize = 2;

/// Runs the `lineshaft` command with the arguments of this process, and returns its exit code.
///
/// Call it from `main` before any other thread is started.
pub fn run() -> ExitCode {
    let parsed = command_line().try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    let Arguments { command, options } = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return help_or_usage(&error),
    };
    let code = match command {
        Command::Serve(args) => return serve::run(args),
        Command::Supervise { args } => return process::supervise_main(args),
        Command::Config(command) => local::run_config_command(&command),
        Command::Store(command) => local::run_store_command(&command, options.json()),
        Command::Token(command) => cli::token::run(command, &options).into(),
        Command::Client(command) => block_on(cli::run(command, options)),
        Command::Doctor(doctor) => {
            let print: fn(&str) = if options.json() { |line| output::stdout_line(line) } else { output::stdout_text };
            block_on(app::doctor::run(doctor, options.json(), print))
        }
        Command::Demo(demo) => block_on(cli::demo::run(demo)),
        Command::Bench(bench) => block_on(cli::bench::run(bench)),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command_line(), "lineshaft", &mut script);
            output::stdout_bytes(&script);
            ExitCode::SUCCESS
        }
    };
    output::exit_code(code)
}

/// Prints requested help to stdout, and a usage error to stderr.
fn help_or_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() {
        return ExitCode::from(2);
    }
    output::check_write(printed);
    output::exit_code(ExitCode::SUCCESS)
}

fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(CLIENT_THREADS).enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => fail(1, &error),
    }
}
