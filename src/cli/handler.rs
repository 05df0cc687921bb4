//! `lineshaft handler`.

use clap::Subcommand;

use crate::proto::v1;

use super::client::Client;
use super::complete;
use super::error::{CommandResult, Exit};
use super::format;
use super::printer::Printer;
use super::put_handler::{self, PutArgs};
use super::table::{Column, Table, TableArgs};
use super::view::{self, Text, View};

static COLUMNS: [Column<v1::Handler>; 5] = [
    Column::new("NAME", 0, |handler, _| handler.name.as_str().into()),
    Column::new("RUNNER", 2, |handler, _| handler.runner.as_str().into()),
    Column::new("POOL", 1, |handler, _| handler.pool.as_str().into()),
    Column::new("SOURCE", 2, |handler, _| handler.source.as_str().into()),
    Column::text("DESCRIPTION", 3, |handler, _| handler.description.as_str().into()),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List handlers
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        table: TableArgs,
    },
    /// Show handlers, with the payload that they expect
    #[command(visible_alias = "show")]
    Get {
        /// Handler name
        #[arg(required = true, add = complete::handlers())]
        names: Vec<String>,
    },
    /// Upload a WebAssembly module as a handler, or replace one that was uploaded
    ///
    /// The server compiles the module and does not run it. Running attempts keep the module that they began with. Requires the
    /// role admin.
    Put(PutArgs),
    /// Delete an uploaded handler
    ///
    /// Running attempts continue; waiting tasks of it fail when they start. Requires the role admin.
    Delete {
        /// Handler name
        #[arg(add = complete::handlers())]
        name: String,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::List { table } => {
            let table = Table::new(&COLUMNS, &table)?;
            let mut response = client.handlers().list_handlers(v1::ListHandlersRequest {}).await?.into_inner();
            printer.print_list(&mut response, &table, |response| &mut response.handlers);
            Ok(Exit::Success)
        }
        Command::Get { names } => {
            let get = async |name| {
                let response = client.handlers().get_handler(v1::GetHandlerRequest { name }).await?.into_inner();
                Ok(response.handler.unwrap_or_default())
            };
            printer.print_each(names, get, details).await
        }
        Command::Put(args) => {
            let handler = put_handler::put(args, &client).await?.handler.unwrap_or_default();
            printer.print(&handler, |handler| details(handler, &printer.view()));
            Ok(Exit::Success)
        }
        Command::Delete { name } => {
            let request = v1::DeleteHandlerRequest { name: name.clone() };
            let response = client.handlers().delete_handler(request).await?.into_inner();
            printer.print(&response, |_| format!("{name} deleted"));
            Ok(Exit::Success)
        }
    }
}

fn details(handler: &v1::Handler, view: &View) -> Text {
    view::fields(
        view,
        &[
            ("name", handler.name.as_str().into()),
            ("runner", handler.runner.as_str().into()),
            ("source", handler.source.as_str().into()),
            ("description", handler.description.as_str().into()),
            ("payload", handler.payload_description.as_str().into()),
            ("schema", handler.payload_schema.as_str().into()),
            ("pool", handler.pool.as_str().into()),
            ("allowed pools", handler.allowed_pools.join(" ").into()),
            ("timeout", format::duration(handler.timeout.as_ref()).into()),
            ("grace", format::duration(handler.grace.as_ref()).into()),
            ("arg pattern", handler.arg_pattern.as_str().into()),
            ("module sha256", handler.module_sha256.as_str().into()),
        ],
    )
}
