//! Options that all client commands share.

use clap::{Args, ValueEnum};

use super::credentials::{CONNECTION, Credentials};
use super::time::TimeForm;

#[derive(Clone, Debug, Args)]
pub struct GlobalOptions {
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT", display_order = 900)]
    output: OutputFormat,
    /// Form of times [default: relative on a terminal, else utc]
    #[arg(long, global = true, value_enum, value_name = "FORM", display_order = 901)]
    pub time: Option<TimeForm>,
    /// Server address
    #[arg(
        long,
        global = true,
        env = "LINESHAFT_SERVER",
        default_value = "http://127.0.0.1:7070",
        value_name = "URL",
        help_heading = CONNECTION
    )]
    pub server: String,
    #[command(flatten)]
    pub credentials: Credentials,
}

impl GlobalOptions {
    /// Whether results are printed as JSON.
    pub fn json(&self) -> bool {
        self.output == OutputFormat::Json
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// Aligned columns
    #[default]
    Table,
    /// One JSON document per line, in the JSON mapping of the contract
    Json,
}
