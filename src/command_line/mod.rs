//! The `lineshaft` command: parses the arguments and runs the command that they name.

mod arguments;
mod local;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap_complete::env::{CompleteEnv, Shells};

use crate::app;
use crate::cli::{self, output};
use crate::runners::process;
use arguments::{Arguments, Command, command_line};
use local::fail;

/// The variable with which the script of a shell asks for completions.
const COMPLETE: &str = "LINESHAFT_COMPLETE";
/// Worker threads of the runtime for client commands.
const CLIENT_THREADS: usize = 2;

/// Runs the `lineshaft` command with the arguments of this process, and returns its exit code.
///
/// Call it from `main` before any other thread is started.
pub fn run() -> ExitCode {
    match complete() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return help_or_usage(&error),
    }
    let parsed = command_line().try_get_matches().and_then(|matches| {
        let Arguments { command, options } = Arguments::from_arg_matches(&matches)?;
        Ok((command, options.with_sources(&matches)))
    });
    let (command, options) = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return help_or_usage(&error),
    };
    let code = match command {
        Command::Serve(args) => return serve::run(args),
        Command::Supervise { args } => return process::supervise_main(args),
        Command::Config(command) => local::run_config_command(&command),
        Command::Store(command) => local::run_store_command(command, options.json()),
        Command::Token(command) => cli::token::run(command, &options).into(),
        Command::Context(command) => cli::context::run(command, &options).into(),
        Command::Client(command) => block_on(cli::run(command, options)),
        Command::Doctor(doctor) => {
            let print: fn(&str) = if options.json() { |line| output::stdout_line(line) } else { output::stdout_text };
            block_on(app::doctor::run(doctor, options.json(), print))
        }
        Command::Demo(demo) => block_on(cli::demo::run(demo)),
        Command::Bench(bench) => block_on_threads(cli::bench::threads(), cli::bench::run(bench)),
        Command::Completion { shell } => print_completion(shell),
    };
    output::exit_code(code)
}

/// Answers a shell that completes a command line. Returns whether there was one.
fn complete() -> clap::error::Result<bool> {
    let directory = std::env::current_dir().ok();
    let completer = CompleteEnv::with_factory(command_line).var(COMPLETE);
    completer.try_complete(std::env::args_os(), directory.as_deref())
}

/// Prints the script with which a shell calls this program to complete a command line.
fn print_completion(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let written = match shells.completer(&shell.to_string()) {
        Some(shell) => shell.write_registration(COMPLETE, "lineshaft", "lineshaft", "lineshaft", &mut script),
        None => Err(std::io::Error::other("the shell is not supported")),
    };
    match written {
        Ok(()) => output::stdout_bytes(&script),
        Err(error) => return fail(1, &error),
    }
    ExitCode::SUCCESS
}

/// Prints requested help to stdout, and a usage error to stderr.
fn help_or_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && asks_for_json(std::env::args_os()) {
        let text = error.to_string();
        let problem = text.split("\n\n").next().unwrap_or_default();
        return cli::report_usage(problem.trim_start_matches("error: ").trim_end());
    }
    let printed = error.print();
    if error.use_stderr() {
        return ExitCode::from(2);
    }
    output::check_write(printed);
    output::exit_code(ExitCode::SUCCESS)
}

/// Whether an invalid command line has `-o json`.
fn asks_for_json(words: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<_> = words.collect();
    let is_json = |pair: &[OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    words.windows(2).any(is_json) || words.iter().any(|word| word == "-ojson" || word == "--output=json")
}

fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    block_on_threads(CLIENT_THREADS, command)
}

fn block_on_threads(threads: usize, command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // A thread may wait for a line from a terminal.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(1, &error),
    }
}
