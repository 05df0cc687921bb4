//! `lineshaft system …` and `lineshaft handler …`.

use std::time::Duration;

use clap::Subcommand;

use crate::proto::v1;

use super::Done;
use super::connect::{Client, Exit};
use super::show::{self, Output};
use super::submit::wire;

/// What can be asked of the server as a whole.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show version, limits and capabilities.
    Info,
    /// Show the machine, the process, and whether each part does its work; exit code 3 when one does not.
    Health,
    /// Begin a graceful shutdown.
    Drain {
        /// Time for running tasks, such as 1m; default: the configured limit.
        #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
        limit: Option<Duration>,
    },
}

/// What can be asked about handlers.
#[derive(Debug, Subcommand)]
pub enum HandlerCommand {
    /// List handlers.
    List,
    /// Show one handler.
    Get {
        /// Its name.
        name: String,
    },
}

pub async fn run(command: Command, client: Client, out: Output) -> Done {
    match command {
        Command::Info => {
            let answer = client.system().get_server_info(v1::GetServerInfoRequest {}).await?.into_inner();
            out.one(&answer, info);
            Ok(Exit::Ok)
        }
        Command::Health => {
            let answer = client.system().get_system_health(v1::GetSystemHealthRequest {}).await?.into_inner();
            let well = !answer.draining && answer.components.iter().all(|part| part.healthy);
            out.one(&answer, health);
            Ok(if well { Exit::Ok } else { Exit::Refused })
        }
        Command::Drain { limit } => {
            let request = v1::DrainRequest { limit: limit.map(wire) };
            let answer = client.system().drain(request).await?.into_inner();
            out.one(&answer, |answer| format!("{} tasks are running", answer.running));
            Ok(Exit::Ok)
        }
    }
}

pub async fn handlers(command: HandlerCommand, client: Client, out: Output) -> Done {
    match command {
        HandlerCommand::List => {
            let answer = client.handlers().list_handlers(v1::ListHandlersRequest {}).await?.into_inner();
            out.one(&answer, |answer| {
                let row = |handler: &v1::Handler| {
                    [handler.name.clone(), handler.runner.clone(), handler.pool.clone(), handler.description.clone()]
                };
                let rows: Vec<_> = answer.handlers.iter().map(row).collect();
                show::table(["NAME", "RUNNER", "POOL", "DESCRIPTION"], &rows)
            });
        }
        HandlerCommand::Get { name } => {
            let answer = client.handlers().get_handler(v1::GetHandlerRequest { name }).await?.into_inner();
            out.one(&answer.handler.unwrap_or_default(), |handler| {
                show::fields(&[
                    ("name", handler.name.clone()),
                    ("runner", handler.runner.clone()),
                    ("description", handler.description.clone()),
                    ("payload", handler.payload_description.clone()),
                    ("pool", handler.pool.clone()),
                    ("allowed pools", handler.allowed_pools.join(" ")),
                    ("timeout", show::span(handler.timeout.as_ref())),
                    ("grace", show::span(handler.grace.as_ref())),
                    ("accepts args", handler.accepts_args.to_string()),
                ])
            });
        }
    }
    Ok(Exit::Ok)
}

fn info(info: &v1::GetServerInfoResponse) -> String {
    let limits = info.limits.unwrap_or_default();
    show::fields(&[
        ("version", info.version.clone()),
        ("instance", info.instance_id.clone()),
        ("started", show::moment(info.started_at.as_ref())),
        ("store", info.store.clone()),
        ("revision", info.revision.to_string()),
        ("oldest revision", info.oldest_revision.to_string()),
        ("capabilities", info.capabilities.join(" ")),
        ("payload bytes", limits.payload_bytes.to_string()),
        ("batch tasks", limits.batch_tasks.to_string()),
        ("retained tasks", limits.retained_tasks.to_string()),
        ("retained age", show::span(limits.retained_age.as_ref())),
    ])
}

fn health(health: &v1::GetSystemHealthResponse) -> String {
    let row = |part: &v1::ComponentHealth| {
        [part.name.clone(), if part.healthy { "healthy" } else { "FAILING" }.to_owned(), part.detail.clone()]
    };
    let rows: Vec<_> = health.components.iter().map(row).collect();
    let system = health.system.unwrap_or_default();
    format!(
        "{}\n\ncpu {:.0} %, memory {:.0} % of {} MiB, server {} MiB in {} threads{}",
        show::table(["PART", "STATE", "DETAIL"], &rows),
        system.cpu_percent,
        system.memory_percent,
        system.memory_total_bytes >> 20,
        system.process_memory_bytes >> 20,
        system.process_threads,
        if health.draining { "; draining" } else { "" }
    )
}
