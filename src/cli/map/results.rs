//! Reads results and prints them in order.

use std::collections::{BTreeMap, HashMap};

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::printer::Printer;
use crate::cli::task::is_terminal;
use crate::cli::view::Text;
use crate::cli::{format, output, terminal};
use crate::proto::v1::{self, TaskState, payload::Kind};

use super::repeat::repeat;

/// What is known of those of the tasks that have ended; `None` if a task was deleted.
pub async fn fetch(client: &Client, ids: Vec<String>) -> Result<Vec<(String, Option<v1::Task>)>, CliError> {
    let filter = Some(v1::TaskFilter { task_ids: ids.clone(), ..v1::TaskFilter::default() });
    let mut request = v1::ListTasksRequest { filter, include_results: true, page_size: 1_000, ..Default::default() };
    let mut found = HashMap::new();
    loop {
        let page = repeat(|| async { client.tasks().list_tasks(request.clone()).await }).await?;
        found.extend(page.tasks.into_iter().map(|task| (task.task_id.clone(), task)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let ended = ids.into_iter().filter_map(|id| match found.remove(&id) {
        Some(task) if is_terminal(task.state()) => Some((id, Some(task))),
        Some(_) => None,
        None => Some((id, None)),
    });
    Ok(ended.collect())
}

pub struct Results {
    printer: Printer,
    is_ordered: bool,
    /// Lines whose results are not printed: an earlier command has.
    after: u64,
    /// Ordered: the last line whose result was printed.
    reached: u64,
    /// Ordered: later results.
    waiting: BTreeMap<u64, Option<v1::Task>>,
    /// Tasks that did not complete.
    pub failed: u64,
}

impl Results {
    pub fn new(is_ordered: bool, after: u64, printer: Printer) -> Self {
        Self { printer, is_ordered, after, reached: 0, waiting: BTreeMap::new(), failed: 0 }
    }

    /// Lines that are not printed; `pending` of them have no result.
    pub fn unprinted(&self, pending: usize) -> usize {
        pending + self.waiting.len()
    }

    /// Number of the first lines whose results were printed, now or by an earlier command.
    pub fn printed(&self) -> u64 {
        self.reached.max(self.after)
    }

    /// Prints the result of a line, now or when those before it have come.
    pub fn add(&mut self, line: u64, task: Option<v1::Task>) {
        if task.as_ref().is_none_or(|task| task.state() != TaskState::Completed) {
            self.failed += 1;
            let why = task.as_ref().map_or_else(
                || "its task was deleted".to_owned(),
                |task| format!("{} {}", format::task_state(task.state), format::failure(task.failure.as_ref())),
            );
            output::status(format_args!("line {line}: {why}"));
        }
        if !self.is_ordered {
            return self.print(line, task.as_ref());
        }
        self.waiting.insert(line, task);
        while let Some(task) = self.waiting.remove(&(self.reached + 1)) {
            self.reached += 1;
            if self.reached > self.after {
                self.print(self.reached, task.as_ref());
            }
        }
    }

    /// A line for each task, so that the results are those of the lines of the input: empty if there is no result.
    fn print(&self, line: u64, task: Option<&v1::Task>) {
        if self.printer.is_json() {
            return self.printer.print(&task.cloned().unwrap_or_default(), |_| Text::default());
        }
        let data = match task.and_then(|task| task.result.as_ref()?.kind.as_ref()) {
            Some(Kind::Data(data)) => &data[..],
            _ => &[],
        };
        let data = data.strip_suffix(b"\n").unwrap_or(data);
        let mut bytes = if self.is_ordered { Vec::new() } else { format!("{line}\t").into_bytes() };
        if output::is_terminal() {
            bytes.extend_from_slice(terminal::bytes(data).as_bytes());
        } else {
            bytes.extend_from_slice(data);
        }
        bytes.push(b'\n');
        output::stdout_bytes(&bytes);
    }
}
