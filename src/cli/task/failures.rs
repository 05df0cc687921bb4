//! `lineshaft task failures`: failed tasks by their cause.

use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit};
use crate::cli::format;
use crate::cli::output;
use crate::cli::printer::Printer;
use crate::cli::table::{Column, Table, TableArgs};
use crate::cli::view::Cell;
use crate::proto::v1;

pub static COLUMNS: [Column<v1::FailureGroup>; 8] = [
    Column::new("GROUP", 0, |group, _| group.id.as_str().into()),
    Column::new("COUNT", 0, |group, _| Cell::number(group.count)),
    Column::text("HANDLER", 0, |group, _| group.handler.as_str().into()),
    Column::new("REASON", 2, |group, _| format::failure_reason(group.reason).into()),
    Column::text("MESSAGE", 0, |group, _| group.message.as_str().into()),
    Column::new("FIRST", 4, |group, view| view.time(group.first_at.as_ref())),
    Column::new("LAST", 1, |group, view| view.time(group.last_at.as_ref())),
    Column::new("LAST TASK", 3, |group, _| group.example_task_id.as_str().into()),
];

pub async fn run(filter: v1::TaskFilter, table: &TableArgs, client: &Client, printer: Printer) -> CommandResult {
    let table = Table::new(&COLUMNS, table)?;
    let request = v1::ListFailureGroupsRequest { filter: Some(filter) };
    let mut list = client.tasks().list_failure_groups(request).await?.into_inner();
    printer.print_list(&mut list, &table, |list| &mut list.groups);
    if list.at_least {
        output::status(format_args!("Only the newest {} failed tasks are grouped", list.tasks));
    }
    Ok(Exit::Success)
}
