//! `lineshaft system`.

use std::time::Duration;

use clap::Subcommand;

use crate::proto::v1;

use super::client::Client;
use super::error::{CommandResult, Exit};
use super::format::{self, Printer};
use super::time::to_proto;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the server's version, limits and capabilities
    Info,
    /// Show the health of the machine and of each component; exit code 3 if the server is unhealthy or draining
    Health,
    /// Start a graceful shutdown: refuse new tasks, wait for running tasks, then exit
    Drain {
        /// Time for running tasks to end, such as 1m, 0s to 24h [default: server.drain_limit of the server]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        limit: Option<Duration>,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::Info => {
            let response = client.system().get_server_info(v1::GetServerInfoRequest {}).await?.into_inner();
            printer.print(&response, info);
            Ok(Exit::Success)
        }
        Command::Health => {
            let response = client.system().get_system_health(v1::GetSystemHealthRequest {}).await?.into_inner();
            let healthy = !response.draining && response.components.iter().all(|component| component.healthy);
            printer.print(&response, health);
            Ok(if healthy { Exit::Success } else { Exit::Refused })
        }
        Command::Drain { limit } => {
            let request = v1::DrainRequest { limit: limit.map(to_proto) };
            let response = client.system().drain(request).await?.into_inner();
            printer.print(&response, |response| format!("draining; running tasks: {}", response.running));
            Ok(Exit::Success)
        }
    }
}

fn info(info: &v1::GetServerInfoResponse) -> String {
    let limits = info.limits.unwrap_or_default();
    format::fields(&[
        ("version", info.version.clone()),
        ("instance", info.instance_id.clone()),
        ("started", format::timestamp(info.started_at.as_ref())),
        ("store", info.store.clone()),
        ("revision", info.revision.to_string()),
        ("oldest revision", info.oldest_revision.to_string()),
        ("oldest resume token", info.oldest_resume_token.clone()),
        ("capabilities", info.capabilities.join(" ")),
        ("payload bytes", limits.payload_bytes.to_string()),
        ("batch tasks", limits.batch_tasks.to_string()),
        ("retained tasks", limits.retained_tasks.to_string()),
        ("retained bytes", limits.retained_bytes.to_string()),
        ("retained age", format::duration(limits.retained_age.as_ref())),
        ("remembered request IDs", limits.remembered_request_ids.to_string()),
        ("remembered request ID age", format::duration(limits.remembered_request_id_age.as_ref())),
    ])
}

fn health(health: &v1::GetSystemHealthResponse) -> String {
    let row = |component: &v1::ComponentHealth| {
        let state = if component.healthy { "healthy" } else { "FAILING" };
        [component.name.clone(), state.to_owned(), component.detail.clone()]
    };
    let rows: Vec<_> = health.components.iter().map(row).collect();
    let system = health.system.unwrap_or_default();
    format!(
        "{}\n\nCPU {:.0}%, memory {:.0}% of {} MiB; server: {} MiB, {} threads{}",
        format::table(["COMPONENT", "STATE", "DETAIL"], &rows),
        system.cpu_percent,
        system.memory_percent,
        system.memory_total_bytes >> 20,
        system.process_memory_bytes >> 20,
        system.process_threads,
        if health.draining { ", draining" } else { "" }
    )
}
