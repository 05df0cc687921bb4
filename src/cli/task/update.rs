//! `lineshaft task update`: changes tasks that have not started.

use std::time::Duration;

use clap::Args;
use tonic::Status;

use crate::cli::client::Client;
use crate::cli::error::{CliError, CommandResult, Exit};
use crate::cli::printer::Printer;
use crate::cli::terminal;
use crate::cli::time::{parse_duration, to_proto};
use crate::cli::view::{Cell, Text};
use crate::proto::v1;

use super::args::{Priority, label, unique_of};
use super::{bulk, each};

#[derive(Clone, Debug, Args)]
pub struct Changes {
    /// New priority
    #[arg(long = "with-priority", value_enum, value_name = "PRIORITY")]
    new_priority: Option<Priority>,
    /// Add this label, or replace the one with its key. Can be repeated
    #[arg(long = "with-label", value_name = "KEY=VALUE", value_parser = label)]
    new_labels: Vec<(String, String)>,
    /// Remove the label with this key. Can be repeated
    #[arg(long = "without-label", value_name = "KEY")]
    remove_labels: Vec<String>,
    /// New timeout of each attempt, such as 90 or 1m30s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Start no earlier than this long after now; 0 removes the delay
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Fail if not started this long after now; 0 removes the expiry
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires_after: Option<Duration>,
}

impl Changes {
    /// # Errors
    /// There is none, or a label is given twice.
    pub fn request(self) -> Result<v1::TaskUpdate, CliError> {
        let update = v1::TaskUpdate {
            priority: self.new_priority.map_or(0, |priority| priority as i32),
            timeout: self.timeout.map(to_proto),
            labels: unique_of("--with-label", self.new_labels)?,
            remove_labels: self.remove_labels,
            delay: self.delay.map(to_proto),
            expires_after: self.expires_after.map(to_proto),
        };
        if update == v1::TaskUpdate::default() {
            let text =
                "name a change: --with-priority, --with-label, --without-label, --timeout, --delay or --expires-after";
            return Err(CliError::Usage(text.to_owned()));
        }
        Ok(update)
    }
}

/// Updates these tasks and prints their states. Where the server refuses one, the others are updated.
pub async fn named(ids: Vec<String>, update: v1::TaskUpdate, client: &Client, printer: Printer) -> CommandResult {
    let call = async |id: String| {
        let request = v1::UpdateTaskRequest { task_id: id.clone(), update: Some(update.clone()) };
        Ok::<_, Status>((id, client.tasks().update_task(request).await?.into_inner()))
    };
    let mut exit = Exit::Success;
    each::call(ids, "updated", call, |response| match response {
        Ok((id, response)) => printer.print_named(&id, &response, |response| {
            let state = Cell::state(response.state);
            let state = printer.view().paint(&state.text, state.color);
            Text::from_safe(format!("{} {state}", terminal::line(&id)))
        }),
        Err(error) => exit = exit.worse(error.report(printer.is_json())),
    })
    .await?;
    Ok(exit)
}

/// Updates the tasks that match and have not started.
pub async fn matching(
    filter: v1::TaskFilter,
    update: v1::TaskUpdate,
    dry_run: bool,
    client: &Client,
    printer: Printer,
) -> CommandResult {
    let request = v1::UpdateTasksRequest { filter: Some(filter), update: Some(update), validate_only: dry_run };
    let stream = client.tasks().update_tasks(request).await;
    let last = bulk::follow(stream, "updated", |message| (message.updated + message.skipped, message.matched)).await?;
    printer.print(&last, |last| match last.skipped {
        _ if dry_run => bulk::preview(last.matched),
        0 => format!("{} updated", last.updated),
        skipped => format!("{} updated, {skipped} had started before", last.updated),
    });
    Ok(Exit::Success)
}
