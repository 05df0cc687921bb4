//! `lineshaft task list`: pages of tasks as one table.

use std::time::Duration;

use tonic::Status;

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::cli::reconnect::Reconnect;
use crate::cli::table::{Column, Table, TableArgs};
use crate::cli::view::Cell;
use crate::cli::{format, output};
use crate::model::limits;
use crate::proto::v1;

/// Between two refreshes of `--watch`.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

pub static COLUMNS: [Column<v1::Task>; 11] = [
    Column::new("ID", 0, |task, _| task.task_id.as_str().into()),
    Column::new("STATE", 0, |task, _| Cell::state(task.state)),
    Column::text("HANDLER", 0, |task, _| task.handler.as_str().into()),
    Column::text("NAME", 3, |task, _| task.display_name.as_str().into()),
    Column::new("PRIORITY", 5, |task, _| Cell::from(format::priority(task.priority)).ordered_by(task.priority)),
    Column::new("POOL", 6, |task, _| task.pool.as_str().into()),
    Column::new("ATTEMPT", 7, |task, _| Cell::number(task.attempt)),
    Column::new("AGE", 1, |task, view| view.age(task.submitted_at.as_ref())),
    Column::new("SUBMITTED", 8, |task, view| view.time(task.submitted_at.as_ref())),
    Column::new("RUN TIME", 4, |task, _| {
        Cell::duration(task.resource_usage.as_ref().and_then(|usage| usage.run_time.as_ref()))
    }),
    Column::text("FAILURE", 2, |task, _| format::failure(task.failure.as_ref()).into()),
];

#[derive(Debug)]
pub struct Options {
    pub filter: v1::TaskFilter,
    pub limit: usize,
    pub table: TableArgs,
    /// Refresh the table until interrupted.
    pub watch: bool,
}

pub async fn run(options: Options, client: Client, printer: Printer) -> CommandResult {
    let table = Table::new(&COLUMNS, &options.table)?;
    if options.watch {
        return refresh(&options, &table, &client, printer).await;
    }
    let mut list = tasks(&options.filter, options.limit, &client).await?;
    printer.print_list(&mut list, &table, |list| &mut list.tasks);
    if !list.next_page_token.is_empty() {
        output::status("More tasks match; use --limit or --all to list them");
    }
    Ok(Exit::Success)
}

/// The newest tasks that match, at most `limit`.
pub async fn tasks(filter: &v1::TaskFilter, limit: usize, client: &Client) -> Result<v1::ListTasksResponse, Status> {
    let mut list = v1::ListTasksResponse::default();
    let progress = Progress::new(None, "found");
    loop {
        let left = limit - list.tasks.len();
        let request = v1::ListTasksRequest {
            filter: Some(filter.clone()),
            page_size: i32::try_from(left.min(limits::PAGE_SIZE_MAX)).unwrap_or(i32::MAX),
            page_token: std::mem::take(&mut list.next_page_token),
            include_results: false,
        };
        let page = client.tasks().list_tasks(request).await?.into_inner();
        progress.add(page.tasks.len() as u64);
        list.tasks.extend(page.tasks);
        list.next_page_token = page.next_page_token;
        // A watch with the token of a later page would miss changes of the tasks of the first one.
        if list.resume_token.is_empty() {
            (list.revision, list.resume_token) = (page.revision, page.resume_token);
        }
        if list.next_page_token.is_empty() || list.tasks.len() >= limit {
            return Ok(list);
        }
    }
}

/// Shows the list on the terminal again and again, also over new connections.
async fn refresh(options: &Options, table: &Table<v1::Task>, client: &Client, printer: Printer) -> CommandResult {
    if !output::is_terminal() || printer.is_json() {
        let text = "--watch refreshes a table on a terminal; use `lineshaft task watch` to print state changes";
        return Err(CliError::Usage(text.to_owned()));
    }
    let mut reconnect = Reconnect::new(Duration::MAX);
    loop {
        match tasks(&options.filter, options.limit, client).await {
            Ok(mut list) => {
                reconnect.answered();
                let view = printer.view().renewed();
                table.sort(&mut list.tasks, &view);
                output::redraw(table.text(&list.tasks, &view));
                tokio::time::sleep(REFRESH_INTERVAL).await;
            }
            Err(status) => reconnect.pause(status).await?,
        }
    }
}
