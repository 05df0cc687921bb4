//! The client of the server that the command line names.

use super::credentials::Credentials;
use super::error::{CliError, with_sources};
use super::output;
use crate::client::ConnectError;

pub use crate::client::Client;

/// The connection is opened by the first call.
pub fn connect(server: &str, credentials: &Credentials) -> Result<Client, CliError> {
    let client = connect_quietly(server, credentials)?;
    if client.exposes_token() {
        output::status(format_args!("warning: the token is sent unencrypted: {server} is not an https URL"));
    }
    Ok(client)
}

/// The same without a warning.
pub fn connect_quietly(server: &str, credentials: &Credentials) -> Result<Client, CliError> {
    let builder = credentials.apply(Client::builder(server))?;
    builder.build().map_err(|error| CliError::Usage(usage(&error)))
}

/// The error, with the options of the command line.
fn usage(error: &ConnectError) -> String {
    match error {
        ConnectError::NotAUrl(server) => format!("--server {server:?} is not a URL"),
        ConnectError::Url(problem) => format!("--server: {problem}, such as http://127.0.0.1:7070"),
        ConnectError::Tls(error) => format!("TLS: {}", with_sources(error)),
        ConnectError::NotHttps(server) => {
            format!("--tls-ca, --tls-cert and --tls-key require an https URL, --server is {server}")
        }
        ConnectError::Token | ConnectError::File { .. } | ConnectError::HalfIdentity => error.to_string(),
    }
}
