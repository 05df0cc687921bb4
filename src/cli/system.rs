//! `lineshaft system`.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::styling::AnsiColor;

use crate::proto::v1;

use super::client::Client;
use super::error::{CommandResult, Exit};
use super::format;
use super::printer::Printer;
use super::table::{Column, Table};
use super::time::{parse_duration, to_proto};
use super::view::{self, Cell, Text, View};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the server's version, limits and capabilities
    Info,
    /// Show the health of the machine and of each component; exit code 3 if the server is unhealthy or draining
    Health,
    /// Start a graceful shutdown: refuse new tasks, wait for running tasks, then exit
    Drain {
        /// Time for running tasks to end, such as 1m, 0s to 24h [default: server.drain_limit of the server]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        limit: Option<Duration>,
    },
}

pub async fn run(command: Command, client: Client, printer: Printer) -> CommandResult {
    match command {
        Command::Info => {
            let response = client.system().get_server_info(v1::GetServerInfoRequest {}).await?.into_inner();
            printer.print(&response, |response| info(response, &printer.view()));
            Ok(Exit::Success)
        }
        Command::Health => {
            let response = client.system().get_system_health(v1::GetSystemHealthRequest {}).await?.into_inner();
            let healthy = !response.draining && response.components.iter().all(|component| component.healthy);
            printer.print(&response, |response| health(response, &printer.view()));
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

fn info(info: &v1::GetServerInfoResponse, view: &View) -> Text {
    let limits = info.limits.unwrap_or_default();
    view::fields(
        view,
        &[
            ("version", info.version.as_str().into()),
            ("instance", info.instance_id.as_str().into()),
            ("started", view.time(info.started_at.as_ref())),
            ("store", info.store.as_str().into()),
            ("revision", info.revision.to_string().into()),
            ("oldest revision", info.oldest_revision.to_string().into()),
            ("oldest resume token", info.oldest_resume_token.as_str().into()),
            ("capabilities", info.capabilities.join(" ").into()),
            ("payload bytes", Cell::number(limits.payload_bytes)),
            ("batch tasks", Cell::number(limits.batch_tasks)),
            ("retained tasks", Cell::number(limits.retained_tasks)),
            ("retained bytes", Cell::number(limits.retained_bytes)),
            ("retained age", format::duration(limits.retained_age.as_ref()).into()),
            ("remembered request IDs", Cell::number(limits.remembered_request_ids)),
            ("remembered request ID age", format::duration(limits.remembered_request_id_age.as_ref()).into()),
        ],
    )
}

static COMPONENTS: [Column<v1::ComponentHealth>; 3] = [
    Column::new("COMPONENT", 0, |component, _| component.name.as_str().into()),
    Column::new("STATE", 0, |component, _| {
        if component.healthy {
            Cell::from("healthy").colored(AnsiColor::Green)
        } else {
            Cell::from("FAILING").colored(AnsiColor::Red)
        }
    }),
    Column::new("DETAIL", 0, |component, _| component.detail.as_str().into()),
];

fn health(health: &v1::GetSystemHealthResponse, view: &View) -> Text {
    let system = health.system.unwrap_or_default();
    let machine = format!(
        "\n\nCPU {:.0}%, memory {:.0}% of {} MiB; server: {} MiB, {} threads{}",
        system.cpu_percent,
        system.memory_percent,
        system.memory_total_bytes >> 20,
        system.process_memory_bytes >> 20,
        system.process_threads,
        if health.draining { ", draining" } else { "" }
    );
    Table::plain(&COMPONENTS).text(&health.components, view).and(&machine.into())
}
