//! Arguments of the `lineshaft` command.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::runners::process;
use crate::{app, cli};

/// Lineshaft: a gRPC task-execution service
///
/// Results go to stdout, messages to stderr. `lineshaft serve` writes its log to stdout.
#[derive(Parser)]
#[command(version, name = "lineshaft", after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub options: cli::GlobalOptions,
}

const AFTER_HELP: &str = "\
Examples:
  lineshaft serve                            # start a server on 127.0.0.1:7070
  lineshaft task run compute --json 5000000  # submit a task, follow it, print its result
  lineshaft task watch --label team=red      # follow state changes
  lineshaft top                              # live activity; ? lists the keys
  lineshaft pool update default --size 8     # resize a pool while the server runs

Exit codes:
  0  success
  1  task failed, or the server could not start
  2  invalid command line or configuration
  3  refused by the server
  4  server unreachable
  5  task cancelled
  6  task not finished";

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once")]
pub enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Print the server's configuration or its schema
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Back up, check or repair the files of a store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Save connections under names, and choose one
    #[command(subcommand)]
    Context(cli::context::Command),
    /// Create, list and revoke tokens (API keys)
    #[command(subcommand)]
    Token(cli::token::Command),
    #[command(flatten)]
    Client(cli::Command),
    /// Check the environment a server would run in and suggest fixes
    Doctor(app::doctor::Options),
    /// Run tasks on a temporary server and check every result
    ///
    /// The exit code is 0 only if every check passed.
    Demo(cli::demo::Options),
    /// Measure a temporary server and compare it with the limits of this machine
    Bench(cli::bench::Options),
    /// Print a script that lets a shell complete commands, options, task IDs, handlers, pools and contexts
    ///
    /// For bash: source <(lineshaft completion bash). The values come from the server, if it answers at once.
    Completion {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
    #[command(name = process::supervisor::SUBCOMMAND, hide = true)]
    Supervise { args: Vec<OsString> },
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print all settings in effect, including defaults, as TOML
    Dump {
        /// Configuration file (TOML) [default: $LINESHAFT_CONFIG, or none]
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
        /// Do not mask the environment variables of handlers
        #[arg(long)]
        show_secrets: bool,
    },
    /// Print the JSON schema of the configuration file
    Schema,
}

#[derive(Subcommand)]
pub enum StoreCommand {
    /// Copy a store to a new directory and check the copy; the server can keep running
    ///
    /// The copy is a consistent snapshot. To restore it, stop the server and replace its data directory with the copy.
    Backup {
        /// Directory to create
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Data directory to copy [default: store.directory of the configuration]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Configuration file (TOML) [default: $LINESHAFT_CONFIG, or none]
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
    },
    /// Verify every record of a store or a backup, and print a summary
    Check {
        /// Data directory, or directory of a backup
        directory: PathBuf,
    },
    /// Rebuild lost or damaged tables from the journal; stop the server first
    ///
    /// Use it if the server refuses to start because of its tables and there is no backup. Tasks that are no longer in
    /// the journal are lost permanently.
    Rebuild {
        /// Data directory
        directory: PathBuf,
    },
}

/// Options that override the environment and the configuration file.
#[derive(clap::Args)]
pub struct ServeArgs {
    /// Configuration file (TOML) [default: $LINESHAFT_CONFIG, or none]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:7070]
    #[arg(long, value_name = "IP:PORT", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// Data directory [default: ./lineshaft-data]
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    pub data_dir: Option<PathBuf>,
    /// Keep all data in memory; it is lost when the server stops
    #[arg(long)]
    pub memory: bool,
    /// Allow other machines to connect without authentication
    #[arg(long)]
    pub insecure: bool,
    /// Write the address to this file when the server accepts connections
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:7070 or [::1]:7070; a host name can have several addresses")
}

/// Commands that do not call a server, with the global options that they have.
const LOCAL_COMMANDS: [(&str, &[&str]); 8] = [
    ("serve", &[]),
    ("config", &[]),
    ("store", &["output"]),
    ("token", &["output", "time"]),
    ("doctor", &["output"]),
    ("demo", &[]),
    ("bench", &[]),
    ("completion", &[]),
];

/// The command line, with the global options hidden where they have no effect.
pub fn command_line() -> clap::Command {
    let mut line = Arguments::command();
    line.build();
    for (name, shown) in LOCAL_COMMANDS {
        line = line.mut_subcommand(name, |command| hide_global_options(command, shown));
    }
    // Only `context add` uses the options of the connection.
    line.mut_subcommand("context", |command| {
        command.mut_subcommands(|command| {
            if command.get_name() == "add" { command } else { hide_global_options(command, &["output", "time"]) }
        })
    })
}

fn hide_global_options(command: clap::Command, shown: &'static [&'static str]) -> clap::Command {
    let without_effect = |arg: &clap::Arg| {
        let id = arg.get_id().as_str();
        arg.get_help_heading() == Some(cli::CONNECTION) || (["output", "time"].contains(&id) && !shown.contains(&id))
    };
    let command = command.mut_args(|arg| if without_effect(&arg) { arg.hide(true) } else { arg });
    command.mut_subcommands(|command| hide_global_options(command, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(words: &[&str]) -> String {
        let line = ["lineshaft"].iter().chain(words).chain(&["--help"]);
        command_line().try_get_matches_from(line).unwrap_err().to_string()
    }

    #[test]
    fn local_commands_hide_the_connection_options() {
        for (name, shown) in LOCAL_COMMANDS {
            let text = help(&[name]);
            assert!(!text.contains("--server") && !text.contains("--token-file"), "{text}");
            for option in ["output", "time"] {
                assert_eq!(text.contains(&format!("--{option} ")), shown.contains(&option), "{text}");
            }
        }
        assert!(!help(&["config", "dump"]).contains("--server"));
        assert!(!help(&["context", "use"]).contains("--server <"));
    }

    #[test]
    fn client_commands_show_the_connection_options_last() {
        for words in [&["task", "list"][..], &["top"], &["system", "health"], &["context", "add"], &[]] {
            let text = help(words);
            let position = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
            let positions = ["--output", "Connection:", "--server <URL>"].map(position);
            assert!(positions.is_sorted(), "{text}");
        }
    }

    #[test]
    fn the_examples_are_valid_commands() {
        let examples: Vec<_> = AFTER_HELP.lines().filter_map(|line| line.strip_prefix("  lineshaft ")).collect();
        assert!(!examples.is_empty());
        for example in examples {
            let words = example.split('#').next().unwrap_or_default().split_whitespace();
            let parsed = command_line().try_get_matches_from(["lineshaft"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{example}: {:?}", parsed.err());
        }
    }
}
