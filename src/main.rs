//! Arguments to configuration to server; everything else is in the library.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use lineshaft::app;
use lineshaft::cli::{self, say};
use lineshaft::config::{self, Config, Overrides};
use lineshaft::runners::process;
use lineshaft::store;
use lineshaft::telemetry::export::{self, Exporters};
use lineshaft::telemetry::{self, log, trace};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lineshaft: a gRPC task-execution service.
///
/// Data goes to standard output, talk to standard error. What `serve` has to say is its log: standard output.
#[derive(Parser)]
#[command(version, name = "lineshaft", after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: cli::Global,
}

const AFTER_HELP: &str = "Examples:
  lineshaft serve                            # on 127.0.0.1:7070, data in ./lineshaft-data
  lineshaft task run compute --json 5000000  # submit, follow, print the result
  lineshaft task watch --label team=red      # follow state changes
  lineshaft pool update default --size 8     # while it runs

Exit codes: 0 well, 1 the task failed (or the server could not start), 2 usage,
3 refused by the server, 4 the server cannot be reached, 5 the task was cancelled,
6 the task has not ended";

/// Commands that call no server, and whether they show answers.
const ALONE: [(&str, bool); 8] = [
    ("serve", false),
    ("config", false),
    ("store", true),
    ("token", true),
    ("doctor", true),
    ("demo", false),
    ("bench", false),
    ("completion", false),
];

/// The command line. The flags of the client are for all commands; those that call no server do not show them.
fn command_line() -> clap::Command {
    let mut line = Arguments::command();
    line.build();
    for (name, answers) in ALONE {
        line = line.mut_subcommand(name, |command| alone(command, answers));
    }
    line
}

fn alone(command: clap::Command, answers: bool) -> clap::Command {
    let of_client = |arg: &clap::Arg| match arg.get_help_heading() {
        Some(heading) => heading == cli::CONNECTION,
        None => !answers && arg.get_id() == "output",
    };
    let command = command.mut_args(|arg| if of_client(&arg) { arg.hide(true) } else { arg });
    command.mut_subcommands(|command| alone(command, answers))
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once")]
enum Command {
    /// Run the server.
    Serve(Serve),
    /// See the server's configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look after the files of a store; no server has to run.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Make, list and revoke API keys.
    Token {
        #[command(subcommand)]
        command: cli::token::Command,
    },
    #[command(flatten)]
    Client(cli::Command),
    /// Look at what a server here would lean on, and say what to do about what is not well.
    Doctor(app::doctor::Options),
    /// Show real work end to end on a server of its own; succeeds only if every result was right.
    Demo(cli::demo::Options),
    /// Measure a server of its own, beside what the machine allows.
    Bench(cli::bench::Options),
    /// Print completions for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    #[command(name = process::supervisor::SUBCOMMAND, hide = true)]
    Supervise { args: Vec<std::ffi::OsString> },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every setting that is in force, as TOML.
    Dump {
        /// Configuration file (TOML).
        #[arg(long, value_name = "PATH")]
        config: Option<std::path::PathBuf>,
        /// Also show what handlers get in their environment.
        #[arg(long)]
        show_secrets: bool,
    },
    /// Print the JSON schema of the configuration file.
    Schema,
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Copy the store, also while a server uses it; the copy is of one moment, and is checked.
    ///
    /// To restore it, stop the server and put the directory in the place of the data directory.
    Backup {
        /// The directory to make.
        #[arg(long, value_name = "DIR")]
        to: std::path::PathBuf,
        /// Directory of the store; otherwise that of the configuration.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<std::path::PathBuf>,
        /// Configuration file (TOML).
        #[arg(long, value_name = "PATH")]
        config: Option<std::path::PathBuf>,
    },
    /// Verify every record of a store or a back-up, and print what is there.
    Check {
        /// Its directory.
        directory: std::path::PathBuf,
    },
    /// Make lost or damaged tables anew from the journal; tasks that it no longer has are lost for good.
    ///
    /// For when a server refuses to start because of that and there is no back-up. No server may run.
    Rebuild {
        /// The directory of the store.
        directory: std::path::PathBuf,
    },
}

/// Flags of the server; they win over the environment and the file.
#[derive(clap::Args)]
struct Serve {
    /// Configuration file (TOML).
    #[arg(long, value_name = "PATH")]
    config: Option<std::path::PathBuf>,
    /// Address to listen on; default: 127.0.0.1:7070.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<std::net::SocketAddr>,
    /// Directory of the store; default: ./lineshaft-data.
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    data_dir: Option<std::path::PathBuf>,
    /// Keep everything in memory; nothing survives a restart.
    #[arg(long)]
    memory: bool,
    /// Listen beyond loopback although callers are not authenticated.
    #[arg(long)]
    insecure: bool,
    /// Write the address to this file once connections are accepted.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let parsed = command_line().try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    let Arguments { command, global } = match parsed {
        Ok(arguments) => arguments,
        Err(said) => return help_or_usage(&said),
    };
    let code = match command {
        Command::Serve(flags) => return serve(flags),
        Command::Supervise { args } => return process::supervise_main(args),
        Command::Config { command } => configuration(&command),
        Command::Store { command } => look_after(&command, global.wants_json()),
        Command::Token { command } => cli::token::run(command, &global).into(),
        Command::Client(command) => match client_runtime() {
            Ok(runtime) => runtime.block_on(cli::run(command, global)),
            Err(error) => fail(1, &error),
        },
        Command::Doctor(options) => match client_runtime() {
            Ok(runtime) => runtime.block_on(app::doctor::run(options, global.wants_json(), |line| say::line(line))),
            Err(error) => fail(1, &error),
        },
        Command::Demo(options) => match client_runtime() {
            Ok(runtime) => runtime.block_on(cli::demo::run(options)),
            Err(error) => fail(1, &error),
        },
        Command::Bench(options) => match client_runtime() {
            Ok(runtime) => runtime.block_on(cli::bench::run(options)),
            Err(error) => fail(1, &error),
        },
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command_line(), "lineshaft", &mut script);
            say::bytes(&script);
            ExitCode::SUCCESS
        }
    };
    say::ending(code)
}

/// What was asked for goes to standard output, what is wrong with the command line to standard error.
fn help_or_usage(said: &clap::Error) -> ExitCode {
    let printed = said.print();
    if said.use_stderr() {
        return ExitCode::from(2);
    }
    say::wrote(printed);
    say::ending(ExitCode::SUCCESS)
}

fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn configuration(command: &ConfigCommand) -> ExitCode {
    let text = match command {
        ConfigCommand::Schema => Ok(Config::schema()),
        ConfigCommand::Dump { config, show_secrets } => {
            let shown = |config: Config| if *show_secrets { config.dump() } else { config.dump_masked() };
            config::load(config.as_deref(), std::env::vars(), Overrides::default()).map(shown)
        }
    };
    match text {
        Ok(text) => {
            say::bytes(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => fail(2, &error),
    }
}

fn look_after(command: &StoreCommand, json: bool) -> ExitCode {
    let found = match command {
        StoreCommand::Check { directory } => store::check(directory),
        StoreCommand::Rebuild { directory } => store::rebuild(directory).and_then(|notes| {
            for note in notes {
                say::talk(format_args!("warning: {note}"));
            }
            store::check(directory)
        }),
        StoreCommand::Backup { to, data_dir, config } => {
            let overrides = Overrides { data_dir: data_dir.clone(), ..Overrides::default() };
            match config::load(config.as_deref(), std::env::vars(), overrides) {
                Ok(config) => store::backup(&config.store.directory, to),
                Err(error) => return fail(2, &error),
            }
        }
    };
    match found {
        Ok(contents) if json => say::line(serde_json::json!(contents)),
        Ok(contents) => say::bytes(contents.to_string().as_bytes()),
        Err(error) => return fail(1, &error),
    }
    ExitCode::SUCCESS
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
    // Before any thread is started: children inherit what their thread has.
    if let Err(error) = process::harden_process() {
        return fail(1, &error);
    }
    let instance = uuid::Uuid::new_v4().to_string();
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let variables = variables.collect();
    #[expect(unsafe_code, reason = "no other thread runs yet")]
    // SAFETY: no other thread runs yet.
    unsafe {
        export::forget_variables();
    }
    let mut exporters = match telemetry::start(telemetry_options(&config), &variables, &instance) {
        Ok(exporters) => exporters,
        Err(error) => return fail(2, &error),
    };
    let served = run(config, flags.ready_file, &instance, &mut exporters);
    exporters.stop();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &*error),
    }
}

fn telemetry_options(config: &Config) -> telemetry::Options {
    let settings = &config.telemetry;
    telemetry::Options {
        endpoint: settings.endpoint.clone(),
        protocol: settings.protocol.name(),
        policy: trace::Policy { mode: settings.trace_mode.into(), parent_within: settings.trace_parent_within.0 },
        task_logs: settings.task_logs,
        log: log::Options {
            format: config.log.format,
            export_level: None,
            filter: config.log.filter.clone(),
            repeats_max: config.log.repeats_max,
        },
    }
}

fn run(
    config: Config,
    ready_file: Option<std::path::PathBuf>,
    instance: &str,
    exporters: &mut Exporters,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(app::serve(config, ready_file, instance, exporters))?;
    // What is left waits for nothing that matters.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(())
}

fn fail(code: u8, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    say::talk(format_args!("error: {error}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(words: &[&str]) -> String {
        let asked = ["lineshaft"].iter().chain(words).chain(&["--help"]);
        command_line().try_get_matches_from(asked).unwrap_err().to_string()
    }

    #[test]
    fn only_commands_that_call_a_server_show_how_one_is_reached() {
        for (name, answers) in ALONE {
            let said = help(&[name]);
            assert!(!said.contains("--server") && !said.contains("--token-file"), "{said}");
            assert_eq!(said.contains("--output"), answers, "{said}");
        }
        assert!(!help(&["config", "dump"]).contains("--server"));
        for words in [&["task", "list"][..], &["pool", "top"], &["system", "health"], &[]] {
            let said = help(words);
            let place = |what: &str| said.find(what).unwrap_or_else(|| panic!("no {what} in {said}"));
            assert!(place("--output") < place("Connection:") && place("Connection:") < place("--server <URL>"));
        }
    }

    #[test]
    fn the_examples_are_commands() {
        let examples: Vec<_> = AFTER_HELP.lines().filter_map(|line| line.strip_prefix("  lineshaft ")).collect();
        assert!(!examples.is_empty());
        for example in examples {
            let words = example.split('#').next().unwrap_or_default().split_whitespace();
            let parsed = command_line().try_get_matches_from(["lineshaft"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{example}: {:?}", parsed.err());
        }
    }
}
