//! `lineshaft limit`.

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use crate::model::limits::PAGE_SIZE_MAX;
use crate::proto::v1;

use super::client::Client;
use super::error::{CommandResult, Exit};
use super::format;
use super::output;
use super::printer::Printer;
use super::table::{Column, Table, TableArgs};
use super::task::limit::name;
use super::view::Cell;

static COLUMNS: [Column<v1::Limit>; 7] = [
    Column::text("LIMIT", 0, |limit, _| name(&limit.name, &limit.key).into()),
    Column::new("TAKEN", 0, |limit, _| taken(limit).into()),
    Column::new("WAITING", 0, |limit, _| Cell::number(limit.waiting)),
    Column::new("RATE", 1, |limit, _| rate(limit).into()),
    Column::new("TOKENS", 1, |limit, _| tokens(limit).into()),
    Column::new("NEXT TOKEN", 2, |limit, view| view.time(limit.next_token_at.as_ref())),
    Column::new("NAMESPACE", 3, |limit, _| limit.namespace.as_str().into()),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the limits of the configuration, and the keys that unfinished tasks use; those for which most tasks wait first
    #[command(visible_alias = "ls")]
    List {
        /// Only limits for which tasks wait
        #[arg(long)]
        waiting: bool,
        /// Only keys of this namespace
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        namespace: Option<String>,
        /// Maximum number of limits, at least 1
        #[arg(long, short = 'n', default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        #[command(flatten)]
        table: TableArgs,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    let Command::List { waiting, namespace, limit, table } = command;
    let table = Table::new(&COLUMNS, &table)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let namespace = namespace.unwrap_or_default();
    let mut request = v1::ListLimitsRequest { namespace, only_waiting: waiting, ..v1::ListLimitsRequest::default() };
    let mut list = v1::ListLimitsResponse::default();
    loop {
        let left = limit - list.limits.len();
        request.page_size = i32::try_from(left.min(PAGE_SIZE_MAX)).unwrap_or(i32::MAX);
        let page = client.tasks().list_limits(request.clone()).await?.into_inner();
        list.limits.extend(page.limits);
        (list.revision, list.next_page_token) = (page.revision, page.next_page_token);
        if list.next_page_token.is_empty() || list.limits.len() >= limit {
            break;
        }
        request.page_token.clone_from(&list.next_page_token);
    }
    let by_name = |limit: &v1::Limit| (limit.namespace.clone(), limit.name.clone(), limit.key.clone());
    list.limits.sort_by_cached_key(|limit| (std::cmp::Reverse(limit.waiting), by_name(limit)));
    printer.print_list(&mut list, &table, |list| &mut list.limits);
    if !list.next_page_token.is_empty() {
        output::status("There are more limits; use --limit to list them, or --waiting for those for which tasks wait");
    }
    Ok(Exit::Success)
}

/// Places that are taken, and how many there are.
fn taken(limit: &v1::Limit) -> String {
    match limit.max_running {
        0 => limit.taken.to_string(),
        max => format!("{}/{max}", limit.taken),
    }
}

fn rate(limit: &v1::Limit) -> String {
    let Some(rate) = &limit.rate else { return String::new() };
    format!("{}/{}", rate.starts, format::duration(rate.interval.as_ref()))
}

fn tokens(limit: &v1::Limit) -> String {
    limit.rate.as_ref().map_or_else(String::new, |rate| format!("{}/{}", limit.tokens, rate.burst))
}
