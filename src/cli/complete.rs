//! Completion of values that a server knows: IDs of tasks, names of handlers and pools; and of contexts.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use tonic::Status;

use super::client::{self, Client};
use super::contexts::Contexts;
use super::format;
use super::options::GlobalOptions;
use crate::proto::v1;

/// A shell waits for the candidates.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Tasks that are read to find candidates.
const TASKS: i32 = 200;

pub fn tasks() -> ArgValueCompleter {
    completer(async |client| {
        let request = v1::ListTasksRequest { page_size: TASKS, ..v1::ListTasksRequest::default() };
        let tasks = client.tasks().list_tasks(request).await?.into_inner().tasks;
        let described = |task: v1::Task| {
            let help = format!("{} {}", format::task_state(task.state), task.handler);
            (task.task_id, help)
        };
        Ok(tasks.into_iter().map(described).collect())
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

pub fn contexts() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let contexts = Contexts::read().unwrap_or_default().by_name;
        candidates(current, contexts.into_iter().map(|(name, context)| (name, context.server)).collect())
    })
}

/// Values with their descriptions.
type Values = Vec<(String, String)>;

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

fn candidates(current: &OsStr, values: Values) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let matching = values.into_iter().filter(|(value, _)| value.starts_with(&*current));
    let candidate =
        |(value, help): (String, String)| CompletionCandidate::new(value).help((!help.is_empty()).then(|| help.into()));
    matching.map(candidate).collect()
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

    #[test]
    fn candidates_begin_with_the_word() {
        let values = ["io", "compute", "copy"].map(|name| (name.to_owned(), String::new()));
        let found = candidates(OsStr::new("co"), values.into());
        assert_eq!(
            found.iter().map(|found| found.get_value().to_str().unwrap()).collect::<Vec<_>>(),
            ["compute", "copy"]
        );
    }
}
