//! Options that all client commands share, and the connection that they choose.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use super::contexts::{self, Context, Contexts};
use super::credentials::{CONNECTION, Credentials};
use super::error::CliError;
use super::time::TimeForm;

const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

#[derive(Clone, Debug, Args)]
pub struct GlobalOptions {
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT", display_order = 900)]
    output: OutputFormat,
    /// Form of times [default: relative on a terminal, else utc]
    #[arg(long, global = true, value_enum, value_name = "FORM", display_order = 901)]
    pub time: Option<TimeForm>,
    /// Named connection; see `lineshaft context` [default: the one in use]
    #[arg(long, global = true, env = "LINESHAFT_CONTEXT", value_name = "NAME", help_heading = CONNECTION, add = contexts::completer())]
    context: Option<String>,
    /// Server address [default: that of the context, else http://127.0.0.1:7070]
    #[arg(long, global = true, env = "LINESHAFT_SERVER", value_name = "URL", help_heading = CONNECTION)]
    server: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// IDs of the options that stand on the command line and not in the environment.
    #[arg(skip)]
    given: Vec<String>,
}

impl GlobalOptions {
    /// Takes note of the options that stand on the command line.
    #[must_use]
    pub fn with_sources(mut self, matches: &ArgMatches) -> Self {
        let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        self.given = matches.ids().map(clap::Id::as_str).filter(is_given).map(str::to_owned).collect();
        self
    }

    /// Whether results are printed as JSON.
    pub fn json(&self) -> bool {
        self.output == OutputFormat::Json
    }

    fn is_given(&self, id: &str) -> bool {
        self.given.iter().any(|given| given == id)
    }

    /// The address of the server, and the credentials.
    ///
    /// Options override the environment, which overrides the context. With `--context`, the environment has no effect,
    /// since it may describe another server; with another server than that of the context, the context has none.
    pub fn connection(&self) -> Result<(String, Credentials), CliError> {
        let (mut server, mut credentials) = (self.server.clone(), self.credentials.clone());
        if self.is_given("context") {
            if self.is_given("server") {
                return Err(CliError::Usage("--context and --server exclude each other".to_owned()));
            }
            server = None;
            credentials.retain(|id| self.is_given(id));
        }
        if self.is_given("token_file") {
            credentials.retain(|id| id != "token" || self.is_given(id));
        }
        let contexts = if server.is_none() { Contexts::read()? } else { Contexts::default() };
        let name = match (&self.context, &server) {
            (Some(_), Some(_)) if !self.is_given("server") => {
                let text =
                    "LINESHAFT_CONTEXT and LINESHAFT_SERVER are both set; unset one, or pass --context or --server";
                return Err(CliError::Usage(text.to_owned()));
            }
            (_, Some(_)) => None,
            (Some(name), None) => Some(name),
            (None, None) => contexts.current.as_ref(),
        };
        let context = name.map(|name| contexts.get(name)).transpose()?;
        let server = server.or_else(|| context.map(|context| context.server.clone()));
        Ok((server.unwrap_or_else(|| DEFAULT_SERVER.to_owned()), credentials.or(context.cloned().unwrap_or_default())))
    }

    /// The connection of the command line, to be saved.
    pub fn to_context(&self) -> Result<Context, CliError> {
        let server = self.server.clone().filter(|_| self.is_given("server"));
        let server = server.ok_or_else(|| CliError::Usage("name the server with --server".to_owned()))?;
        if self.is_given("token") {
            return Err(CliError::Usage(
                "a context contains no secret: write the token to a file, and pass --token-file".to_owned(),
            ));
        }
        let mut credentials = self.credentials.clone();
        credentials.retain(|id| self.is_given(id));
        credentials.into_context(server)
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
