//! `lineshaft pool decisions`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::model::limits::PAGE_SIZE_MAX;
use crate::proto::v1::{self, DecisionReason};

use super::client::Client;
use super::complete;
use super::error::{CommandResult, Exit};
use super::format::{self, counted};
use super::output;
use super::printer::Printer;
use super::table::{Column, Table, TableArgs};
use super::view::Cell;

static COLUMNS: [Column<v1::Decision>; 11] = [
    Column::new("TIME", 0, |decision, view| view.time(decision.time.as_ref())),
    Column::new("TASK", 0, |decision, _| decision.task_id.as_str().into()),
    Column::new("PRIORITY", 1, |decision, _| format::priority(decision.priority).into()),
    Column::new("NAMESPACE", 2, |decision, _| decision.namespace.as_str().into()),
    Column::new("KEY", 1, |decision, _| decision.fairness_key.as_str().into()),
    Column::new("WAIT", 0, |decision, _| Cell::duration(decision.wait.as_ref())),
    Column::new("EXPECTED", 3, |decision, _| Cell::duration(decision.expected_time.as_ref())),
    Column::text("WHY", 0, |decision, _| why(decision).into()),
    Column::new("HANDLER", 3, |decision, _| decision.handler.as_str().into()),
    Column::new("STARTED", 4, |decision, view| view.time(decision.started_at.as_ref())),
    Column::new("WORKER", 2, |decision, _| decision.worker.as_str().into()),
];

#[derive(Debug, Args)]
pub struct DecisionArgs {
    /// Pool name
    #[arg(default_value = "default", add = complete::pools())]
    pool: String,
    /// Only tasks of this namespace
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,
    /// Only this task
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new(), add = complete::tasks())]
    task: Option<String>,
    /// Only tasks of this handler
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), add = complete::handlers())]
    handler: Option<String>,
    /// Only tasks with this fairness key
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    fairness_key: Option<String>,
    /// Maximum number of decisions, at least 1; the server keeps 10,000 of each pool
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    #[command(flatten)]
    table: TableArgs,
}

pub async fn decisions(args: DecisionArgs, client: &Client, printer: Printer) -> CommandResult {
    let table = Table::new(&COLUMNS, &args.table)?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut request = v1::ListDecisionsRequest {
        pool: args.pool,
        namespace: args.namespace.unwrap_or_default(),
        task_id: args.task.unwrap_or_default(),
        handler: args.handler.unwrap_or_default(),
        fairness_key: args.fairness_key.unwrap_or_default(),
        ..v1::ListDecisionsRequest::default()
    };
    let mut list = v1::ListDecisionsResponse::default();
    loop {
        let left = limit - list.decisions.len();
        request.page_size = i32::try_from(left.min(PAGE_SIZE_MAX)).unwrap_or(i32::MAX);
        let page = client.pools().list_decisions(request.clone()).await?.into_inner();
        list.decisions.extend(page.decisions);
        (list.revision, list.next_page_token) = (page.revision, page.next_page_token);
        if list.next_page_token.is_empty() || list.decisions.len() >= limit {
            break;
        }
        request.page_token.clone_from(&list.next_page_token);
    }
    printer.print_list(&mut list, &table, |list| &mut list.decisions);
    if !list.next_page_token.is_empty() {
        output::status("There are more decisions; use --limit to list them");
    }
    Ok(Exit::Success)
}

/// Why the task was chosen.
fn why(decision: &v1::Decision) -> String {
    let others = [(decision.other_namespaces, "other namespace"), (decision.other_fairness_keys, "other fairness key")];
    let others: Vec<_> = others.into_iter().filter(|(count, _)| *count > 0).map(|(n, what)| counted(n, what)).collect();
    match decision.reason() {
        DecisionReason::Turn if others.is_empty() => "next of the highest priority".to_owned(),
        DecisionReason::Turn => format!("its turn among {}", others.join(" and ")),
        DecisionReason::Promoted => "its priority had waited too long".to_owned(),
        DecisionReason::Trial => "runs alone after crashes".to_owned(),
        DecisionReason::Unspecified => String::new(),
    }
}
