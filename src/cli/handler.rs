//! `lineshaft handler`.

use clap::Subcommand;

use crate::proto::v1;

use super::client::Client;
use super::error::{CommandResult, Exit};
use super::format::{self, Printer};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List handlers
    List,
    /// Show one handler, with the payload that it expects
    Get {
        /// Handler name
        name: String,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::List => {
            let response = client.handlers().list_handlers(v1::ListHandlersRequest {}).await?.into_inner();
            printer.print(&response, |response| table(&response.handlers));
        }
        Command::Get { name } => {
            let response = client.handlers().get_handler(v1::GetHandlerRequest { name }).await?.into_inner();
            printer.print(&response.handler.unwrap_or_default(), details);
        }
    }
    Ok(Exit::Success)
}

fn table(handlers: &[v1::Handler]) -> String {
    let row = |handler: &v1::Handler| {
        [handler.name.clone(), handler.runner.clone(), handler.pool.clone(), handler.description.clone()]
    };
    let rows: Vec<_> = handlers.iter().map(row).collect();
    format::table(["NAME", "RUNNER", "POOL", "DESCRIPTION"], &rows)
}

fn details(handler: &v1::Handler) -> String {
    format::fields(&[
        ("name", handler.name.clone()),
        ("runner", handler.runner.clone()),
        ("description", handler.description.clone()),
        ("payload", handler.payload_description.clone()),
        ("pool", handler.pool.clone()),
        ("allowed pools", handler.allowed_pools.join(" ")),
        ("timeout", format::duration(handler.timeout.as_ref())),
        ("grace", format::duration(handler.grace.as_ref())),
        ("arg pattern", handler.arg_pattern.clone()),
    ])
}
