//! `lineshaft task list`: pages of tasks as one table.

use crate::model::limits;
use crate::proto::v1;

use super::filter::Filter;
use crate::cli::client::Client;
use crate::cli::error::{CommandResult, Exit};
use crate::cli::format::{self, Printer};
use crate::cli::output;

pub async fn run(filter: Filter, limit: usize, client: Client, printer: Printer) -> CommandResult {
    let filter = v1::TaskFilter::try_from(filter)?;
    let mut list = v1::ListTasksResponse::default();
    loop {
        let left = limit - list.tasks.len();
        let request = v1::ListTasksRequest {
            filter: Some(filter.clone()),
            page_size: i32::try_from(left.min(limits::PAGE_SIZE_MAX)).unwrap_or(i32::MAX),
            page_token: std::mem::take(&mut list.next_page_token),
            include_results: false,
        };
        let page = client.tasks().list_tasks(request).await?.into_inner();
        list.tasks.extend(page.tasks);
        list.next_page_token = page.next_page_token;
        // A watch with the token of a later page would miss changes of the tasks of the first one.
        if list.resume_token.is_empty() {
            (list.revision, list.resume_token) = (page.revision, page.resume_token);
        }
        if list.next_page_token.is_empty() || list.tasks.len() >= limit {
            break;
        }
    }
    printer.print(&list, |list| {
        let rows: Vec<_> = list.tasks.iter().map(row).collect();
        format::table(["ID", "STATE", "PRIORITY", "HANDLER", "POOL", "ATTEMPT", "SUBMITTED"], &rows)
    });
    if !list.next_page_token.is_empty() {
        output::status("More tasks match; use --limit or --all to list them");
    }
    Ok(Exit::Success)
}

fn row(task: &v1::Task) -> [String; 7] {
    [
        task.task_id.clone(),
        format::task_state(task.state),
        format::priority(task.priority),
        task.handler.clone(),
        task.pool.clone(),
        task.attempt.to_string(),
        format::timestamp(task.submitted_at.as_ref()),
    ]
}
