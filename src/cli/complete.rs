//! Completion of values that a server knows: IDs of tasks, batches and schedules, and names of handlers and pools.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use clap_complete::engine::ArgValueCompleter;
use tonic::Status;

use super::candidates::{Values, candidates};
use super::client::{self, Client};
use super::format;
use super::options::GlobalOptions;
use crate::proto::v1;

/// A shell waits for the candidates.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Tasks, batches or schedules that are read to find candidates.
const READ: i32 = 200;

pub fn tasks() -> ArgValueCompleter {
    completer(async |client| {
        let request = v1::ListTasksRequest { page_size: READ, ..v1::ListTasksRequest::default() };
        let tasks = client.tasks().list_tasks(request).await?.into_inner().tasks;
        let described = |task: v1::Task| {
            let help = format!("{} {}", format::task_state(task.state), task.handler);
            (task.task_id, help)
        };
        Ok(tasks.into_iter().map(described).collect())
    })
}

pub fn batches() -> ArgValueCompleter {
    completer(async |client| {
        let request = v1::ListBatchesRequest { page_size: READ, ..v1::ListBatchesRequest::default() };
        let batches = client.batches().list_batches(request).await?.into_inner().batches;
        Ok(batches.into_iter().map(|batch| (batch.batch_id, batch.display_name)).collect())
    })
}

pub fn schedules() -> ArgValueCompleter {
    completer(async |client| {
        let request = v1::ListSchedulesRequest { page_size: READ, ..v1::ListSchedulesRequest::default() };
        let schedules = client.schedules().list_schedules(request).await?.into_inner().schedules;
        let handler = |spec: v1::ScheduleSpec| spec.task.unwrap_or_default().handler;
        Ok(schedules.into_iter().map(|one| (one.schedule_id, one.spec.map(handler).unwrap_or_default())).collect())
    })
}

pub fn handlers() -> ArgValueCompleter {
    completer(async |client| {
        let handlers = client.handlers().list_handlers(v1::ListHandlersRequest {}).await?.into_inner().handlers;
        Ok(handlers.into_iter().map(|handler| (handler.name, handler.description)).collect())
    })
}

pub fn pools() -> ArgValueCompleter {
    completer(async |client| {
        let pools = client.pools().list_pools(v1::ListPoolsRequest {}).await?.into_inner().pools;
        Ok(pools.into_iter().map(|pool| (pool.name, pool.description)).collect())
    })
}

/// Without an answer in time there are no candidates: a message would damage the command line that is edited.
fn completer(
    values: impl AsyncFn(Client) -> Result<Values, Status> + Copy + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let found = || {
            let matches = Words::command().try_get_matches_from(connection_words(std::env::args_os())).ok()?;
            let options = Words::from_arg_matches(&matches).ok()?.options.with_sources(&matches);
            let (server, credentials) = options.connection().ok()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let client = client::connect_quietly(&server, &credentials).ok()?;
                tokio::time::timeout(TIMEOUT, values(client)).await.ok()?.ok()
            })
        };
        candidates(current, found().unwrap_or_default())
    })
}

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    options: GlobalOptions,
}

/// The options of the edited command line that describe the connection. The rest of it may be incomplete.
fn connection_words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    const OPTIONS: [&str; 7] =
        ["--context", "--server", "--token", "--token-file", "--tls-ca", "--tls-cert", "--tls-key"];
    let mut found = vec![OsString::from("lineshaft")];
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else { continue };
        let name = text.split('=').next().unwrap_or_default();
        if OPTIONS.contains(&name) {
            let has_value = text.contains('=');
            found.push(word);
            found.extend(if has_value { None } else { words.next() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_of_an_unfinished_command_line_is_found() {
        let line = "lineshaft -- lineshaft task get --server http://x:1 --wide --token-file=t 01a --label";
        let words = connection_words(line.split(' ').map(OsString::from));
        assert_eq!(words, ["lineshaft", "--server", "http://x:1", "--token-file=t"]);
    }
}
